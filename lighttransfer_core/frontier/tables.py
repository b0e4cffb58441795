"""Sweeps as tables: a row per number for machines and the console, and Markdown for people who read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import (
    Cell,
    Estimate,
    Point,
    are_alike,
    cells,
    compared,
    is_random,
    lead,
    point,
    rankings,
    scored,
)
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.types import Window

_ASKED = {"aware": "the question in the prompt", "agnostic": "the question asked of the cut cache"}


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


def markdown(sweep: Sweep) -> str:
    """A table for each length and way to ask: rankings by windows and shares, each with the share of the full model's
    score that is left, and then that of the task of which least is left; of texts that are read, minus their NLL."""
    spec, together = sweep.header.spec, are_alike(sweep.results)
    groups = [
        [Cell(task, length, window, question) for window in spec.windows]
        for question in spec.questions
        for length in spec.lengths
        for task in ([None] if together else spec.tasks)
    ]
    return "\n\n".join(_table(sweep, group) for group in groups if any(map(group[0].holds, sweep.results)))


def _table(sweep: Sweep, by_window: Sequence[Cell]) -> str:
    layers = len(sweep.header.model.convertible_layers)
    columns = [(cell, share) for cell in by_window for share in sorted(sweep.header.spec.shares)]
    asked = [one for one in sweep.results if by_window[0].holds(one)]
    lines = [
        _introduction(sweep, by_window, asked),
        "",
        _line("ranking", [f"{_window(cell)}, {share:.0%}" for cell, share in columns]),
        _line("---", ["---"] * len(columns)),
    ]
    for name in compared(sweep):
        ranked = sum(name in one.orders[by_window[0].window] for one in asked)
        if ranked:
            few = f", {ranked} prompts" if ranked < len(asked) else ""
            kept = [_kept(sweep, cell, name, layers_lazy(share, layers)) for cell, share in columns]
            lines.append(_line(f"`{name}`{few}", kept))
    if chance := [name for name in rankings(asked) if is_random(name)]:
        means = [_chance(sweep, cell, chance, layers_lazy(share, layers)) for cell, share in columns]
        lines.append(_line(f"random ({len(chance)})", means))
    return "\n".join(lines)


def _introduction(sweep: Sweep, by_window: Sequence[Cell], asked: Sequence[ExampleResult]) -> str:
    first, layers = by_window[0], len(sweep.header.model.convertible_layers)
    ends = [point(asked, cell, rankings(asked)[0], layers, scored) for cell in by_window]
    streaming = [f"{_left(end).mean:.2f} ({_window(cell)})" for cell, end in zip(by_window, ends, strict=True) if end]
    full = np.mean([scored(one.full) for one in asked])
    task = "" if first.task is None else f", {first.task}"
    return (
        f"**{first.length:,} tokens, {_ASKED[first.question]}{task}**: {len(asked)} prompts. The full model has "
        f"{full:.2f}; all layers streaming keep {', '.join(streaming)}."
    )


def _kept(sweep: Sweep, cell: Cell, ranking: str, lazy: int) -> str:
    found = point(sweep.results, cell, ranking, lazy, scored)
    if found is None:
        return ""
    if cell.task is not None or _is_likelihood(found):
        return _left(found).text
    tasks = (replace(cell, task=task) for task in sweep.header.spec.tasks)
    each = (point(sweep.results, one, ranking, lazy, scored) for one in tasks)
    weakest = min((one.ratio.mean for one in each if one is not None and one.full.mean > 0), default=math.nan)
    return f"{found.ratio.text}, {weakest:.2f}"


def _chance(sweep: Sweep, cell: Cell, names: Sequence[str], lazy: int) -> str:
    found = [point(sweep.results, cell, name, lazy, scored) for name in names]
    return f"{np.mean([_left(one).mean for one in found if one is not None]):.2f}"


def _left(at: Point) -> Estimate:
    """What tables show: the share of the full model's score, or what the likelihood is."""
    return at.value if _is_likelihood(at) else at.ratio


def _is_likelihood(at: Point) -> bool:
    """Scores are 0 and more, minus an NLL is less."""
    return at.full.mean < 0


def _window(cell: Cell) -> str:
    return f"{cell.window.sink} + {cell.window.recent}"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"
