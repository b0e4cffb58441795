"""The machinery of measuring; how fast this machine is, no test asserts."""

from __future__ import annotations

import pytest
import torch

from lighttransfer_core import speed
from lighttransfer_core.batches import Batch
from lighttransfer_core.cost.roofline import predicted_step_s
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import as_loaded
from lighttransfer_core.steps import finished
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny

PLAN = ConversionPlan((1, 3), Window(2, 9))


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "read_nbytes", lambda _device: 2**14)


@pytest.fixture
def lm(architecture: str) -> LoadedModel:
    return as_loaded(make_tiny(architecture))


@pytest.fixture
def tiny_llama() -> LoadedModel:
    return as_loaded(make_tiny("llama"))


def test_a_measurement_has_both_sides_of_every_point_with_the_formula_s_bytes(lm: LoadedModel) -> None:
    plan = ConversionPlan(lm.spec.convertible_layers[-1:], Window(2, 9))
    found = speed.measure(lm, plan, (20, 64), (1, 2))
    places = [(point.tokens, point.batch, point.with_plan) for point in found.points]
    assert places == [(t, b, side) for b in (1, 2) for t in (20, 64) for side in (False, True)]
    assert all(point.kv_bytes == point.kv_formula_bytes > 0 for point in found.points)
    assert all(0 < p.latency.low_s <= p.latency.median_s <= p.latency.high_s for p in found.points)
    assert (found.spec, found.plan) == (lm.spec, plan)


def test_the_speed_says_where_and_how_it_was_measured(tiny_llama: LoadedModel) -> None:
    found = speed.measure(tiny_llama, PLAN, (20,), (3,)).speed
    assert [batch for batch, _ in found.floors] == [1, 3, 8, 32]
    assert [batch for batch, _ in found.kv_rates] == [1, 3, 8, 32]
    assert found.bandwidth > 0
    assert all(rate > 0 for _, rate in found.kv_rates)
    assert (found.device, found.dtype, found.threads) == ("cpu", "float32", torch.get_num_threads())
    assert torch.__version__ in found.versions


def test_a_floor_and_its_bytes_are_the_step_that_was_measured(
    tiny_llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that is told, the prediction of the measured step is that step."""
    monkeypatch.setattr(speed, "bandwidth_steps", lambda _device: _at_once(1e6))
    monkeypatch.setattr(speed, "kv_rate_steps", lambda _record, _batch: _at_once(1e5))
    real = Batch.step

    def timed(batch: Batch) -> object:
        return type(step := real(batch))(step.token_ids, 2.0 + batch.size)

    monkeypatch.setattr(Batch, "step", timed)
    found = finished(speed.speed_steps(tiny_llama))
    tokens = speed.SHORT_TOKENS + speed.WARM_UP_STEPS + speed.STEPS
    for batch in (1, 8, 32):
        assert predicted_step_s(found, tiny_llama.spec, None, tokens, batch) == pytest.approx(2.0 + batch)


def _at_once(value: float):  # type: ignore[no-untyped-def]
    yield
    return value


def test_progress_never_runs_back_and_every_turn_is_one_step_at_most(
    tiny_llama: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    real = Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch: steps.append(1) or real(batch))
    turns = speed.measure_steps(tiny_llama, PLAN, (20, 30), (1,))
    fractions, before = [], 0
    for progress in turns:
        fractions.append(progress.fraction)
        assert len(steps) - before <= 1
        before = len(steps)
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] < 1


def test_a_measurement_holds_no_more_than_it_said(tiny_llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[int, int] = {}
    real = Batch.step

    def watched(batch: Batch) -> object:
        done = real(batch)
        held[id(batch)] = max(held.get(id(batch), 0), sum(batch.cache.layer_allocated_nbytes()))
        return done

    monkeypatch.setattr(Batch, "step", watched)
    alive: list[Batch] = []
    init = Batch.__init__
    monkeypatch.setattr(Batch, "__init__", lambda batch, *rest: alive.append(batch) or init(batch, *rest))
    speed.measure(tiny_llama, PLAN, (100, 400), (2,))
    points = [held[id(batch)] for batch in alive[-4:]]
    said = speed.measurement_nbytes(tiny_llama.spec, torch.device("cpu"), PLAN, (100, 400), (2,))
    assert max(points[0] + points[1], points[2] + points[3]) <= said


def test_what_cannot_be_measured_is_refused_before_anything_is_made(tiny_llama: LoadedModel) -> None:
    for tokens in (speed.WARM_UP_STEPS + speed.STEPS, 513):
        with pytest.raises(InvalidPromptError, match="13 to 512"):
            next(speed.measure_steps(tiny_llama, PLAN, (20, tokens)))
    with pytest.raises(InvalidPlanError):
        next(speed.measure_steps(tiny_llama, ConversionPlan((9,)), (20,)))
    with pytest.raises(InvalidInputError, match="batch=0"):
        next(speed.measure_steps(tiny_llama, PLAN, (20,), (0,)))
