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
from lighttransfer_core.types import Float64Array, Window

CHANCE = "random"
"""The mean of all random orders, where one ranking is named beside another."""
NO_NUMBER = "–"
"""In place of a number where there is none, as of a share of nothing."""
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
        return NO_NUMBER if math.isnan(self.mean) else f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def signed_text(self) -> str:
        """The same of a difference, with a dot where the interval leaves out zero."""
        beyond = " ●" if self.low > 0 or self.high < 0 else ""
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{beyond}"


@dataclass(frozen=True)
class Point:
    """One ranking at one share: `value` beside `full`, the full model on the same prompts, and their `ratio`."""

    lazy: int
    value: Estimate
    full: Estimate
    ratio: Estimate


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


def random_orders(results: Iterable[ExampleResult]) -> list[str]:
    """The rankings that know nothing."""
    return [name for name in rankings(results) if is_random(name)]


def compared(sweep: Sweep) -> list[str]:
    """The rankings that are held against each other: neither random orders nor single sets of layers."""
    sets = {one.name for one in sweep.header.spec.orders if one.lazy is not None}
    return [name for name in rankings(sweep.results) if not is_random(name) and name not in sets]


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
    """How much better a ranking does than others: than the mean of those that ranked the same prompt, over the prompts
    that any of them ranked."""
    rows = []
    for result in results:
        own = result.outcome(ranking, cell.window, lazy) if cell.holds(result) else None
        found = [] if own is None else [result.outcome(name, cell.window, lazy) for name in others]
        told = [what(outcome) for outcome in found if outcome is not None]
        if own is not None and told:
            rows.append(what(own) - float(np.mean(told)))
    return mean_of(rows)


def others_named(results: Iterable[ExampleResult], beside: str) -> list[str]:
    """What is meant by a ranking's name, or by `CHANCE`, beside another."""
    return random_orders(results) if beside == CHANCE else [beside]


def lead(
    results: Sequence[ExampleResult],
    cell: Cell,
    ranking: str,
    others: Sequence[str],
    lazy: int,
    what: Callable[[Outcome], float],
) -> Estimate | None:
    """`difference`, and None of one of the others itself or where there are none."""
    return difference(results, cell, ranking, others, lazy, what) if others and ranking not in others else None


def lead_text(found: Estimate | None, prompts: int) -> str:
    """A lead in a table of so many prompts; it says where it is over fewer."""
    return "" if found is None else of_fewer(found.signed_text, found.count, prompts)


def of_fewer(text: str, count: int, prompts: int) -> str:
    """A number in a table of so many prompts; it says where it is over fewer."""
    return text if count == prompts else f"{text}, {count} prompt{'s' * (count != 1)}"


def spoken_range(counts: Iterable[int]) -> str:
    """The only number there is, or the least and the most."""
    known = sorted(set(counts))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


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


def scored(outcome: Outcome) -> float:
    """What tables show of an outcome: its score, or minus its NLL where there is none."""
    return outcome.value
