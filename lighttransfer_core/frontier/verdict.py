"""Which ranking to use, from the evidence of a sweep; and that there is none, where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell, Point, point, rankings, scored, values_of
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.types import Window

KEPT = 0.9
"""Share of the full model's score that counts as kept."""
ENOUGH = 20
"""Prompts of a task without which nothing is said of it."""


@dataclass(frozen=True)
class Verdict:
    """How far one ranking goes.

    Attributes
    ----------
    share
        The largest share of lazy layers, of those tried on enough prompts, up to which every task keeps its score; 0:
        none of them.
    weakest
        The task that keeps least at that share (or at the smallest one tried), and how much.
    may_go_further
        Larger shares were tried of other rankings or prompts, but none of this one here.
    """

    ranking: str
    share: float
    task: str
    weakest: Point
    may_go_further: bool = False


def verdicts(sweep: Sweep, length: int, window: Window, question: Question) -> list[Verdict]:
    """Every ranking with enough prompts, the one that goes furthest first; of equal ones, the one that keeps most."""
    of_tasks = [Cell(task, length, window, question) for task in sweep.header.spec.tasks]
    results = {cell: [one for one in sweep.results if cell.holds(one)] for cell in of_tasks}
    shares = {
        share: layers_lazy(share, len(sweep.header.model.convertible_layers)) for share in sweep.header.spec.shares
    }
    judged = (_verdict(results, ranking, shares) for ranking in rankings(sweep.results))
    found = [verdict for verdict in judged if verdict is not None]
    return sorted(found, key=lambda one: (one.share, one.weakest.ratio.mean), reverse=True)


def _verdict(
    results: Mapping[Cell, Sequence[ExampleResult]], ranking: str, shares: Mapping[float, int]
) -> Verdict | None:
    reached: tuple[float, Cell, int] | None = None
    tried = 0.0
    for share, lazy in sorted(shares.items()):
        weakest = _weakest(results, ranking, lazy)
        if weakest is None:
            continue
        (cell, ratio), tried = weakest, share
        kept = ratio >= KEPT
        if kept or reached is None:
            reached = share if kept else 0.0, cell, lazy
        if not kept:
            break
    if reached is None:
        return None
    share, cell, lazy = reached
    at = point(results[cell], cell, ranking, lazy, scored)
    assert at is not None, "what was weakest was measured"
    assert cell.task is not None, "each cell is of one task"
    return Verdict(ranking, share, cell.task, at, may_go_further=share == tried < max(shares))


def _weakest(results: Mapping[Cell, Sequence[ExampleResult]], ranking: str, lazy: int) -> tuple[Cell, float] | None:
    """The scored task that keeps least of the full model's score, and how much; None where one has too few prompts, or
    the full model can do none."""
    found = []
    for cell, examples in results.items():
        values, full = values_of(examples, cell, ranking, lazy, scored)
        if len(values) < ENOUGH:
            return None
        if full.mean() > 0:
            found.append((cell, float(values.mean() / full.mean())))
    return min(found, key=lambda one: one[1], default=None)
