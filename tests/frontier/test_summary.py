from __future__ import annotations

import numpy as np
import pytest

from lighttransfer_core.frontier.results import ExampleResult, Outcome, Sweep
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.frontier.summary import Cell, cells, difference, point, rankings, scored, table_rows
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


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    found = point([result(0, 0.0, 0.0, 0.0)], CELL, "good", 2, scored)
    assert found is not None
    assert np.isnan(found.ratio.mean)


def test_the_table_has_every_cell_and_all_tasks_together() -> None:
    spec = SweepSpec(tasks=("a", "b"), lengths=(700,), windows=(WINDOW,), shares=(0.5,))
    header = SweepHeader(spec, MODEL)
    sweep = Sweep(header, (result(0, 1.0, 1.0, 0.0), result(0, 1.0, 0.0, 0.0, task="b")))
    assert [cell.task for cell in cells(sweep)] == ["a", "b", None]
    assert rankings(sweep.results) == ["good", "bad"]
    rows = {(row["task"], row["ranking"], row["share"]): row["value"]["mean"] for row in table_rows(sweep)}
    assert rows["a", "good", 0.5] == 1.0
    assert rows["b", "good", 0.5] == 0.0
    assert rows["all", "good", 0.5] == 0.5
    assert rows["all", "good", 1.0] == 0.0
