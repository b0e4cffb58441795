from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import ExampleResult, Outcome, Sweep, with_set
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.frontier.summary import (
    Cell,
    Estimate,
    are_alike,
    cells,
    difference,
    lead_text,
    point,
    scored,
)
from lighttransfer_core.types import ModelSpec, Window

WINDOW = Window(4, 60)
MODEL = ModelSpec(
    "tiny", "llama", 4, 6, 2, 8, 512, 97, "float32", 4, "cpu", None, 1000, 4000, ("full",) * 4, (None,) * 4
)
CELL = Cell("a", 700, WINDOW)


def result(seed: int, full: float, good: float, bad: float, task: str = "a") -> ExampleResult:
    """Two rankings of four layers, which part at two lazy layers."""
    orders = {"good": (0, 1, 2, 3), "bad": (3, 2, 1, 0)}
    outcomes = {(0, 1): Outcome(good), (2, 3): Outcome(bad), (0, 1, 2, 3): Outcome(0.0)}
    key = ExampleKey(task, 700, seed, "aware")
    return ExampleResult(key, 700, "", Outcome(full), {WINDOW: orders}, {WINDOW: outcomes})


def many(count: int = 200) -> list[ExampleResult]:
    draw = np.random.default_rng(1)
    full = draw.random(count) < 0.9
    good, bad = full & (draw.random(count) < 0.95), full & (draw.random(count) < 0.5)
    return [result(seed, *(float(one[seed]) for one in (full, good, bad))) for seed in range(count)]


def test_a_point_is_the_mean_with_an_interval_that_holds_it() -> None:
    results = many()
    found = point(results, CELL, "good", 2, scored)
    assert found is not None
    values = [one.outcome("good", WINDOW, 2).score for one in results]  # type: ignore[union-attr]
    fulls = [one.full.score for one in results]
    assert found.value.mean == pytest.approx(np.mean(values))
    assert found.full.mean == pytest.approx(np.mean(fulls))
    assert found.ratio.mean == pytest.approx(np.mean(values) / np.mean(fulls))
    spread = 1.96 * np.std(values) / np.sqrt(len(values))
    assert found.value.low == pytest.approx(np.mean(values) - spread, abs=0.01)
    assert found.value.high == pytest.approx(np.mean(values) + spread, abs=0.01)
    assert found.value.count == 200
    assert point(results, CELL, "good", 2, scored) == found, "the same every time"
    assert point(results, Cell("b", 700, WINDOW), "good", 2, scored) is None
    assert point(results, CELL, "unheard_of", 2, scored) is None


def test_differences_are_paired() -> None:
    results = many()
    found = difference(results, CELL, "good", ["bad"], 2, scored)
    assert found is not None
    gaps = np.array([one.outcome("good", WINDOW, 2).score - one.outcome("bad", WINDOW, 2).score for one in results])  # type: ignore
    assert found.mean == pytest.approx(gaps.mean())
    assert found.low > 0, "better beyond the interval"
    same = difference(results, CELL, "good", ["good"], 2, scored)
    assert same is not None
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0), "no difference, whatever the prompts"
    band = difference(results, CELL, "good", ["good", "bad"], 2, scored)
    assert band is not None
    assert band.mean == pytest.approx(gaps.mean() / 2)


def test_beside_several_those_count_that_ranked_the_same_prompt() -> None:
    """As random orders do, of which sweeps that are taken together tried more and fewer."""
    both, alone = result(0, 1.0, 1.0, 0.0), result(1, 1.0, 1.0, 0.5)
    alone = replace(alone, orders={WINDOW: {"good": (0, 1, 2, 3), "bad": (3, 2, 1, 0)}})
    both = replace(both, orders={WINDOW: {**both.orders[WINDOW], "other": (1, 0, 2, 3)}})
    found = difference([both, alone], CELL, "good", ["bad", "other"], 2, scored)
    assert found is not None
    assert (found.mean, found.count) == (0.5, 2)
    assert difference([both, alone], CELL, "good", ["unheard_of"], 2, scored) is None


def test_an_estimate_is_written_with_its_interval() -> None:
    assert Estimate(0.5, 0.4, 0.62, 20).text == "0.50 [0.40, 0.62]"
    assert Estimate(0.5, 0.4, 0.62, 20).signed_text == "+0.50 [+0.40, +0.62] ●"
    assert Estimate(-0.1, -0.2, 0.0, 20).signed_text == "-0.10 [-0.20, +0.00]", "zero is in it"
    nothing = float("nan")
    assert Estimate(nothing, nothing, nothing, 3).signed_text == "+nan [+nan, +nan]", "not beyond anything"
    assert lead_text(Estimate(0.5, 0.4, 0.62, 20), 20) == "+0.50 [+0.40, +0.62] ●"
    assert lead_text(Estimate(0.5, 0.4, 0.62, 20), 150) == "+0.50 [+0.40, +0.62] ●, 20 prompts"
    assert lead_text(None, 150) == ""


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    found = point([result(0, 0.0, 0.0, 0.0)], CELL, "good", 2, scored)
    assert found is not None
    assert np.isnan(found.ratio.mean)


CHOSEN = StaticOrder("chosen", WINDOW, (1, 2, 0, 3), lazy=2)


def tried(seeds: range, orders: tuple[StaticOrder, ...] = (CHOSEN,), **facts: Any) -> Sweep:
    """A sweep in which the layers 1 and 2 were right for even seeds."""
    spec = SweepSpec(tasks=("a",), lengths=(700,), windows=(WINDOW,), rankings=(), orders=orders, **facts)
    named = {WINDOW: {CHOSEN.name: CHOSEN.order}}
    results = [
        replace(
            result(seed, 1.0, 1.0, 0.0),
            orders=named,
            outcomes={WINDOW: {(1, 2): Outcome(float(seed % 2 == 0)), (0, 1, 2, 3): Outcome(0.0)}},
        )
        for seed in seeds
    ]
    return Sweep(SweepHeader(spec, MODEL), tuple(results))


def test_a_set_of_layers_stands_beside_rankings_on_the_same_prompts() -> None:
    spec = SweepSpec(tasks=("a",), lengths=(700,), windows=(WINDOW,))
    sweep = Sweep(SweepHeader(spec, MODEL), tuple(result(seed, 1.0, 1.0, 0.0) for seed in range(10)))
    found = with_set(sweep, [sweep, tried(range(4, 20))], CHOSEN)
    at = point(found.results, CELL, "chosen", 2, scored)
    assert at is not None
    assert (at.value.count, at.value.mean) == (6, 0.5), "the seeds that both have"
    assert point(found.results, CELL, "chosen", 1, scored) is None
    gap = difference(found.results, CELL, "chosen", ["good"], 2, scored)
    assert gap is not None
    assert gap.mean == -0.5
    assert point(found.results, CELL, "good", 2, scored) == point(sweep.results, CELL, "good", 2, scored)
    for others in (
        [],
        [tried(range(10), rendering="raw")],
        [tried(range(10), max_new_tokens=3)],
        [tried(range(10), orders=(StaticOrder("chosen", WINDOW, (1, 2, 0, 3)),))],
        [tried(range(10), orders=(replace(CHOSEN, window=Window(4, 61)),))],
    ):
        assert with_set(sweep, others, CHOSEN).results == sweep.results, "another question, or not asked of that set"


def test_what_is_read_and_what_is_answered_are_no_average() -> None:
    spec = SweepSpec(tasks=("a", "b"), lengths=(700,), windows=(WINDOW,))
    read = replace(result(0, 1.0, 1.0, 0.0, task="b"), full=Outcome(None, 2.0, 0.0))
    sweep = Sweep(SweepHeader(spec, MODEL), (result(0, 1.0, 1.0, 0.0), read))
    assert not are_alike(sweep.results)
    assert [cell.task for cell in cells(sweep)] == ["a", "b"]
    assert are_alike(sweep.results[:1])
    assert are_alike(sweep.results[1:])
