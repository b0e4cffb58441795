from __future__ import annotations

import pytest

from lighttransfer_core.cost.measured import BatchRun, Latency, MeasuredPoint, MeasuredThroughput, Measurement
from lighttransfer_core.cost.roofline import DeviceSpeed
from lighttransfer_core.models import describe
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny

PLAN = ConversionPlan((1,), Window(2, 5))


def run(batch: int, seconds: float) -> BatchRun:
    return BatchRun(batch, 40, Latency(seconds, seconds, seconds, 1), 10, 10, 12, 99)


def test_latency_is_median_and_quartiles() -> None:
    assert Latency.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Latency(3.0, 2.0, 4.0, 5)
    assert Latency.of([7.0]) == Latency(7.0, 7.0, 7.0, 1)


def test_throughput_counts_every_sequence_and_the_ratio_is_of_tokens_per_second() -> None:
    found = MeasuredThroughput(describe(make_tiny("llama")), PLAN, 100, 30, run(4, 0.5), run(8, 0.8))
    assert (found.full.tokens_per_s, found.lazy.tokens_per_s) == (8.0, 10.0)
    assert found.ratio == pytest.approx(1.25)
    assert MeasuredThroughput.from_json(found.to_json()) == found


def test_a_measurement_survives_json() -> None:
    point = MeasuredPoint(40, 2, True, Latency(0.1, 0.1, 0.2, 9), 10, 10)
    made = Measurement(describe(make_tiny("gemma3")), PLAN, DeviceSpeed(1e9, ((1, 5e8),), ((1, 0.1),)), (point,))
    assert Measurement.from_json(made.to_json()) == made
