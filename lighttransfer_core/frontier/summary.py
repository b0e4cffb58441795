"""Numbers over results: means with intervals, differences between rankings on the same prompts, and a verdict.

Knows numpy and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lighttransfer_core.frontier.results import ExampleResult, Outcome, Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.types import Float64Array, Window

CHANCE = "random"
"""The mean of all random orders, where one ranking is named beside another."""
RESAMPLES = 2000
_LEVEL = 0.95
_NORMAL_QUANTILE = 1.959964
"""Between minus and plus this many standard deviations a normal variable has that level."""


@dataclass(frozen=True)
class Cell:
    """What a table's cell is about: one task (None: all of them) at one length, window and way to ask."""

    task: str | None
    length: int | None
    window: Window
    question: Question = "aware"

    def holds(self, result: ExampleResult) -> bool:
        key = result.key
        return (
            self.task in (None, key.task)
            and self.length in (None, key.length)
            and key.question == self.question
            and self.window in result.orders
        )


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` prompts with its 95% interval; where nothing else is said, from resampled prompts."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def text(self) -> str:
        """The mean with its interval."""
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def signed_text(self) -> str:
        """The same of a difference, with a dot where the interval leaves out zero."""
        beyond = "" if self.low <= 0 <= self.high else " ●"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{beyond}"


@dataclass(frozen=True)
class Point:
    """One ranking at one share: `value` beside `full`, the full model on the same prompts, and their `ratio`."""

    lazy: int
    value: Estimate
    full: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class TableRow:
    """One ranking at one share in one cell. `task` is "all" for all of them together.

    Attributes
    ----------
    value, full, ratio
        As a `Point` has them.
    lead
        Over another ranking, on the same prompts; None where none was named, and of that one itself.
    """

    task: str
    length: int
    window: str
    question: Question
    ranking: str
    share: float
    lazy: int
    value: Estimate
    full: Estimate
    ratio: Estimate
    lead: Estimate | None


def cells(sweep: Sweep) -> list[Cell]:
    """Every cell of a sweep, all tasks together at the end of each window where they can be averaged."""
    spec = sweep.header.spec
    together = (None,) if are_alike(sweep.results) else ()
    return [
        Cell(task, length, window, question)
        for question in spec.questions
        for length in spec.lengths
        for window in spec.windows
        for task in (*spec.tasks, *together)
    ]


def are_alike(results: Sequence[ExampleResult]) -> bool:
    """Whether all are scored, or all judged by likelihood: the two are no numbers of one kind."""
    return len({one.full.score is None for one in results}) < 2


def rankings(results: Iterable[ExampleResult]) -> list[str]:
    """Names of all rankings that ranked some example, in order of appearance."""
    return list(dict.fromkeys(name for one in results for orders in one.orders.values() for name in orders))


def is_random(ranking: str) -> bool:
    """Whether a ranking knows nothing: there are several, each with a seed of its own."""
    return ranking.startswith(f"{CHANCE}_")


def values_of(
    results: Sequence[ExampleResult], cell: Cell, ranking: str, lazy: int, what: Callable[[Outcome], float]
) -> tuple[Float64Array, Float64Array]:
    """A ranking's values and the full model's on the same prompts, `[N]` each."""
    pairs = []
    for result in results:
        outcome = result.outcome(ranking, cell.window, lazy) if cell.holds(result) else None
        if outcome is not None:
            pairs.append((what(outcome), what(result.full)))
    found = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def point(
    results: Sequence[ExampleResult], cell: Cell, ranking: str, lazy: int, what: Callable[[Outcome], float]
) -> Point | None:
    """One ranking at one number of lazy layers; None where it ranked nothing there."""
    values, full = values_of(results, cell, ranking, lazy, what)
    if not len(values):
        return None
    chosen = resamples(len(values))
    return Point(
        lazy,
        _estimate(values.mean(), values[chosen].mean(axis=1), len(values)),
        _estimate(full.mean(), full[chosen].mean(axis=1), len(values)),
        _estimate(
            _ratio(values.mean(), full.mean()),
            _ratio(values[chosen].mean(axis=1), full[chosen].mean(axis=1)),
            len(full),
        ),
    )


def difference(
    results: Sequence[ExampleResult],
    cell: Cell,
    ranking: str,
    others: Sequence[str],
    lazy: int,
    what: Callable[[Outcome], float],
) -> Estimate | None:
    """How much better a ranking does than others (their mean), on the prompts that all of them ranked."""
    rows = []
    for result in results:
        if not cell.holds(result):
            continue
        found = [result.outcome(name, cell.window, lazy) for name in (ranking, *others)]
        told = [what(outcome) for outcome in found if outcome is not None]
        if len(told) == len(found):
            rows.append(told[0] - float(np.mean(told[1:])))
    return mean_of(rows)


def lead(
    results: Sequence[ExampleResult],
    cell: Cell,
    ranking: str,
    beside: str,
    lazy: int,
    what: Callable[[Outcome], float],
) -> Estimate | None:
    """How far a ranking is ahead of another, or of `CHANCE`; None of itself, and where no prompt has both."""
    others = [name for name in rankings(results) if is_random(name)] if beside == CHANCE else [beside]
    if not others or ranking in others:
        return None
    return difference(results, cell, ranking, others, lazy, what)


def mean_of(values: Sequence[float]) -> Estimate | None:
    """The mean of one number per prompt; None of nothing."""
    if not len(values):
        return None
    found = np.array(values, dtype=np.float64)
    return _estimate(found.mean(), found[resamples(len(found))].mean(axis=1), len(found))


def proportion(hits: int, count: int) -> Estimate | None:
    """A share of prompts with its Wilson interval, which few prompts and shares of 0 or 1 do not make too narrow.

    Source: Wilson 1927; recommended for small samples by Brown, Cai and DasGupta 2001.
    """
    if not count:
        return None
    mean, square = hits / count, _NORMAL_QUANTILE**2 / count
    middle, half = mean + square / 2, math.sqrt(square * (mean * (1 - mean) + square / 4))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    # at shares of 0 and 1 one end is the share itself, which rounding must not miss
    return Estimate(mean, max(min(low, mean), 0.0), min(max(high, mean), 1.0), count)


@lru_cache(maxsize=16)
def resamples(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Which prompts each of the resampled sets holds, `[RESAMPLES, count]`; always the same for the same count."""
    return np.random.default_rng(20241013).integers(0, count, size=(RESAMPLES, count))


def _ratio(values: Float64Array | np.floating, full: Float64Array | np.floating) -> Float64Array:
    """Share of the full model's score; nan where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(full) == 0, np.nan, np.asarray(values) / np.asarray(full))


def _estimate(mean: np.floating | Float64Array, spread: Float64Array, count: int) -> Estimate:
    known = spread[np.isfinite(spread)]
    if not len(known):
        return Estimate(float(mean), float("nan"), float("nan"), count)
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(float(mean), float(low), float(high), count)


def table_rows(sweep: Sweep, beside: str | None = None) -> list[TableRow]:
    """A row per cell, ranking and share: its mean, the full model's, their ratio, and the lead over another ranking
    where one is named, each with an interval.

    Tasks that are scored and tasks that are judged by likelihood are never averaged together.
    """
    rows = []
    for cell in cells(sweep):
        for ranking in rankings(sweep.results):
            for share, lazy in _tried(sweep, ranking, cell.window):
                found = point(sweep.results, cell, ranking, lazy, scored)
                if found is not None:
                    ahead = lead(sweep.results, cell, ranking, beside, lazy, scored) if beside else None
                    rows.append(_table_row(cell, ranking, share, found, ahead))
    return rows


def _tried(sweep: Sweep, ranking: str, window: Window) -> list[tuple[float, int]]:
    """The shares, with their numbers of layers, at which a ranking was tried; a set of layers has one of its own."""
    layers = len(sweep.header.model.convertible_layers)
    for one in sweep.header.spec.orders:
        if one.name == ranking and one.window == window and one.lazy is not None:
            return [(one.lazy / layers, one.lazy)]
    return [(share, layers_lazy(share, layers)) for share in (*sweep.header.spec.shares, 1.0)]


def scored(outcome: Outcome) -> float:
    """What tables show of an outcome: its score, or minus its NLL where there is none."""
    return outcome.value


def _table_row(cell: Cell, ranking: str, share: float, at: Point, ahead: Estimate | None) -> TableRow:
    return TableRow(
        task=cell.task or "all",
        length=cell.length or 0,
        window=f"{cell.window.sink}+{cell.window.recent}",
        question=cell.question,
        ranking=ranking,
        share=share,
        lazy=at.lazy,
        value=at.value,
        full=at.full,
        ratio=at.ratio,
        lead=ahead,
    )
