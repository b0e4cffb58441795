"""Which ranking to use, from the evidence of a sweep; and that there is none, where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell, Point, point, rankings, scored
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
        The largest share of lazy layers, of those tried, up to which every task keeps its score; 0: none of them.
    weakest
        The task that keeps least at that share (or at the smallest one tried), and how much.
    """

    ranking: str
    share: float
    task: str
    weakest: Point


def verdicts(sweep: Sweep, length: int, window: Window, question: Question) -> list[Verdict]:
    """Every ranking with enough prompts, the one that goes furthest first; of equal ones, the one that keeps most."""
    found = [
        verdict
        for ranking in rankings(sweep.results)
        if (verdict := _verdict(sweep, ranking, length, window, question)) is not None
    ]
    return sorted(found, key=lambda one: (one.share, one.weakest.ratio.mean), reverse=True)


def _verdict(sweep: Sweep, ranking: str, length: int, window: Window, question: Question) -> Verdict | None:
    convertible, reached = len(sweep.header.model.convertible_layers), None
    for share in sorted(sweep.header.spec.shares):
        lazy = layers_lazy(share, convertible)
        weakest = _weakest(sweep.results, sweep.header.spec.tasks, ranking, lazy, length, window, question)
        if weakest is None:
            return reached
        kept = weakest[1].ratio.mean >= KEPT
        if kept or reached is None:
            reached = Verdict(ranking, share if kept else 0.0, *weakest)
        if not kept:
            break
    return reached


def _weakest(
    results: Sequence[ExampleResult],
    tasks: Sequence[str],
    ranking: str,
    lazy: int,
    length: int,
    window: Window,
    question: Question,
) -> tuple[str, Point] | None:
    """The scored task that keeps least; None where one has too few prompts, or the full model cannot do it."""
    found = []
    for task in tasks:
        at = point(results, Cell(task, length, window, question), ranking, lazy, scored)
        if at is None or at.value.count < ENOUGH:
            return None
        if at.full.mean > 0:
            found.append((task, at))
    return min(found, key=lambda one: one[1].ratio.mean, default=None)
