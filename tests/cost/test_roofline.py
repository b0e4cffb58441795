"""What a step reads and how many sequences fit, against counting by hand and by trial."""

from __future__ import annotations

import pytest

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.roofline import (
    DeviceSpeed,
    largest_batch,
    least_step_s,
    predicted_step_s,
    predicted_throughput,
    step_bytes,
)
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.models import describe
from lighttransfer_core.models.catalogue import find
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window
from tests.conftest import make_tiny

PLAN = ConversionPlan((1, 3), Window(4, 6))
ROW = 2 * 2 * 8 * 4  # key and value, heads, entries, bytes
SPEED = DeviceSpeed(1e9, kv_rates=((8, 4e8), (2, 1e8)), floors=((2, 0.5), (8, 0.8)))


@pytest.fixture
def spec() -> ModelSpec:
    return describe(make_tiny("llama"))


def test_a_step_reads_the_weights_once_and_every_sequence_s_cache(spec: ModelSpec) -> None:
    assert step_bytes(spec, None, 50, batch=3) == spec.weight_bytes + 3 * 4 * 50 * ROW
    assert step_bytes(spec, PLAN, 50, batch=3) == spec.weight_bytes + 3 * (2 * 50 + 2 * 10) * ROW


def test_the_largest_batch_is_the_last_that_fits_by_trial(spec: ModelSpec) -> None:
    for plan in (None, PLAN):
        for tokens in (1, 7, 50):
            for room in (0, 1, 3 * 4 * 7 * ROW - 1, 3 * 4 * 7 * ROW, 10**6):
                fitting = [batch for batch in range(1, 400) if kv_bytes(spec, plan, tokens, batch) <= room]
                if len(fitting) < 399:
                    assert largest_batch(spec, plan, tokens, room) == max(fitting, default=0)
    assert largest_batch(spec, None, 7, -1) == 0
    with pytest.raises(InvalidInputError, match="tokens=0"):
        largest_batch(spec, None, 0, 100)


def test_a_predicted_step_is_floor_and_weights_and_cache(spec: ModelSpec) -> None:
    weights, cache = spec.weight_bytes / 1e9, 4 * 50 * ROW
    assert predicted_step_s(SPEED, spec, None, 50, 2) == pytest.approx(0.5 + weights + 2 * cache / 1e8)
    assert predicted_step_s(SPEED, spec, None, 50, 8) == pytest.approx(0.8 + weights + 8 * cache / 4e8)
    assert predicted_step_s(SPEED, spec, None, 50, 4) == pytest.approx(0.6 + weights + 4 * cache / 2e8)


def test_past_what_was_measured_the_floor_goes_on_and_the_rate_stays() -> None:
    assert (SPEED.floor_s(14), SPEED.kv_rate(14)) == (pytest.approx(1.1), 4e8)
    assert (SPEED.floor_s(1), SPEED.kv_rate(1)) == (pytest.approx(0.45), 1e8)
    three = DeviceSpeed(1.0, floors=((1, 1.0), (2, 5.0), (4, 6.0)))
    assert [three.floor_s(batch) for batch in (1, 2, 3, 4, 6)] == pytest.approx([1.0, 5.0, 5.5, 6.0, 7.0])
    assert DeviceSpeed(1.0, floors=((1, 0.1), (2, 0.9))).floor_s(0) == 0.0, "no step takes less than no time"
    assert DeviceSpeed(1.0, floors=((4, 0.3),)).floor_s(9) == 0.3


def test_an_ideal_device_takes_the_least_time(spec: ModelSpec) -> None:
    ideal = DeviceSpeed.ideal(1e9)
    for plan in (None, PLAN):
        assert predicted_step_s(ideal, spec, plan, 50, 3) == pytest.approx(least_step_s(ideal, spec, plan, 50, 3))
    assert least_step_s(SPEED, spec, PLAN, 50) == step_bytes(spec, PLAN, 50) / 1e9


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan")])
def test_a_device_without_bandwidth_is_refused(bandwidth: float) -> None:
    with pytest.raises(InvalidInputError, match="bandwidth"):
        DeviceSpeed(bandwidth)


def test_throughput_is_the_largest_batch_over_its_step(spec: ModelSpec) -> None:
    room = 5 * 4 * 50 * ROW + 1
    found = predicted_throughput(SPEED, spec, None, 50, room)
    assert found is not None
    assert found.batch == 5
    assert found.tokens_per_s == pytest.approx(5 / predicted_step_s(SPEED, spec, None, 50, 5))
    assert predicted_throughput(SPEED, spec, None, 50, 4 * 50 * ROW - 1) is None


def test_bytes_alone_give_half_the_layers_at_most_twice_the_throughput() -> None:
    """The paper measured up to 2.17 with half of the layers lazy; whole sequences may round in the plan’s favour."""
    entry = find("mistral-7b")
    assert entry is not None
    spec = entry.spec()
    half = ConversionPlan(spec.convertible_layers[16:], Window(4, 1020))
    ideal = DeviceSpeed.ideal(2e12)
    for tokens, limit in ((4096, 1.6), (32_768, 1.94)):
        full, lazy = (predicted_throughput(ideal, spec, plan, tokens, 2**40) for plan in (None, half))
        assert full is not None
        assert lazy is not None
        assert limit - 0.05 < lazy.tokens_per_s / full.tokens_per_s < limit + 0.01 < 2.0


def test_speeds_survive_json() -> None:
    assert DeviceSpeed.from_json(SPEED.to_json()) == SPEED
