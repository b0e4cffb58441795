"""Sweeps as tables: a row per number for machines and the console, and Markdown for people who read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lighttransfer_core.frontier.orders import window_text
from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import (
    NO_NUMBER,
    Cell,
    Estimate,
    Point,
    are_alike,
    cells,
    compared,
    is_random,
    lead,
    of_fewer,
    others_named,
    point,
    random_orders,
    rankings,
    scored,
    spoken_range,
)
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.types import Window

_ASKED = {"aware": "the question in the prompt", "agnostic": "the question asked of the cut cache"}


@dataclass(frozen=True)
class TableRow:
    """One ranking at one share in one cell of a sweep. `task` is "all" for all of them together.

    Attributes
    ----------
    value, full, ratio
        As a `Point` has them; no ratio of likelihoods, nor where the full model scores 0.
    lead
        Over another ranking, on the prompts that both ranked; None where none was named, of that one itself, and at a
        number of layers at which the sweep did not try it.
    """

    sweep: str
    task: str
    length: int
    window: str
    question: Question
    ranking: str
    share: float
    lazy: int
    value: Estimate
    full: Estimate
    ratio: Estimate | None
    lead: Estimate | None


def table_rows(sweep: Sweep, beside: str | None = None) -> list[TableRow]:
    """A row per cell, ranking and share: its mean, the full model's, their ratio, and the lead over another ranking
    where one is named, each with an interval.

    Tasks that are scored and tasks that are judged by likelihood are never averaged together.
    """
    rows = []
    others = [] if beside is None else others_named(sweep.results, beside)
    tried = {lazy for _, lazy in _shares(sweep)}
    for cell in cells(sweep):
        held = [one for one in sweep.results if cell.holds(one)]
        for ranking in rankings(held):
            for share, lazy in _tried(sweep, ranking, cell.window):
                found = point(held, cell, ranking, lazy, scored)
                if found is not None:
                    ahead = lead(held, cell, ranking, others, lazy, scored) if lazy in tried else None
                    rows.append(_table_row(sweep, cell, ranking, share, found, ahead, _by_likelihood(held)))
    return rows


def _shares(sweep: Sweep) -> list[tuple[float, int]]:
    """The shares at which rankings were tried, with their numbers of layers."""
    layers = len(sweep.header.model.convertible_layers)
    return [(share, layers_lazy(share, layers)) for share in dict.fromkeys((*sweep.header.spec.shares, 1.0))]


def _tried(sweep: Sweep, ranking: str, window: Window) -> list[tuple[float, int]]:
    """Those of one ranking; a set of layers has one of its own."""
    for one in sweep.header.spec.orders:
        if one.name == ranking and one.window == window and one.lazy is not None:
            return [(one.lazy / len(sweep.header.model.convertible_layers), one.lazy)]
    return _shares(sweep)


def _by_likelihood(held: Sequence[ExampleResult]) -> bool:
    return any(one.full.score is None for one in held)


def _table_row(
    sweep: Sweep, cell: Cell, ranking: str, share: float, at: Point, ahead: Estimate | None, by_likelihood: bool
) -> TableRow:
    return TableRow(
        sweep=sweep.title,
        task=cell.task or "all",
        length=cell.length or 0,
        window=window_text(cell.window),
        question=cell.question,
        ranking=ranking,
        share=share,
        lazy=at.lazy,
        value=at.value,
        full=at.full,
        ratio=None if by_likelihood or not at.full.mean else at.ratio,
        lead=ahead,
    )


def markdown(sweep: Sweep) -> str:
    """A table for each length and way to ask: rankings by windows and shares, each with the share of the full model's
    score that is left, and then that of the task of which least is left; of texts that are read, minus their NLL."""
    if not compared(sweep):
        return ""
    spec, together = sweep.header.spec, are_alike(sweep.results)
    groups = [
        _Group(sweep, [Cell(task, length, window, question) for window in spec.windows])
        for question in spec.questions
        for length in spec.lengths
        for task in ([None] if together else spec.tasks)
    ]
    return "\n\n".join(group.markdown() for group in groups if group.held)


class _Group:
    """What one table shows: the cells of all windows, which hold the same prompts."""

    def __init__(self, sweep: Sweep, by_window: Sequence[Cell]) -> None:
        self._sweep, self._by_window = sweep, by_window
        self.held = [one for one in sweep.results if by_window[0].holds(one)]
        self._by_likelihood = _by_likelihood(self.held)
        layers = len(sweep.header.model.convertible_layers)
        shares = sorted(sweep.header.spec.shares)
        self._columns = [(cell, share, layers_lazy(share, layers)) for cell in by_window for share in shares]

    def markdown(self) -> str:
        heads = [f"{_window_text(cell)}, {share:.0%}" for cell, share, _ in self._columns]
        lines = [self._introduction(), "", _line("ranking", heads), _line("---", ["---"] * len(heads))]
        for name in compared(self._sweep):
            ranked = sum(any(name in orders for orders in one.orders.values()) for one in self.held)
            if ranked:
                few = "" if ranked == len(self.held) else f", {_prompts(ranked)}"
                kept = [self._kept(cell, name, lazy, ranked) for cell, _, lazy in self._columns]
                lines.append(_line(f"`{name}`{few}", kept))
        if chance := random_orders(self.held):
            means = [self._chance(cell, chance, lazy) for cell, _, lazy in self._columns]
            drawn = (sum(map(is_random, one.orders[self._by_window[0].window])) for one in self.held)
            lines.append(_line(f"random ({spoken_range(filter(None, drawn))})", means))
        return "\n".join(lines)

    def _introduction(self) -> str:
        first, full = self._by_window[0], float(np.mean([scored(one.full) for one in self.held]))
        task = "" if first.task is None else f", {first.task}"
        about = f"**{first.length:,} tokens, {_ASKED[first.question]}{task}**: {_prompts(len(self.held))}."
        if not (full or self._by_likelihood):
            return f"{about} The full model has {full:.2f}, so there is nothing that could be kept."
        streaming = [(cell, self._streaming(cell, full)) for cell in self._by_window]
        ends = [f"{end:.2f} ({_window_text(cell)})" for cell, end in streaming if end is not None]
        verb = "" if self._by_likelihood else "keep "
        told = f"{verb}{', '.join(ends)}" if ends else "were not tried"
        said = (
            f"Minus the NLL, in nats per token: the full model {full:.2f}; all layers streaming {told}."
            if self._by_likelihood
            else f"The full model has {full:.2f}; all layers streaming {told}."
        )
        return f"{about} {said}"

    def _streaming(self, cell: Cell, full: float) -> float | None:
        """What is left with all convertible layers streaming; None where not every prompt was asked so."""
        layers = tuple(sorted(self._sweep.header.model.convertible_layers))
        found = [one.outcomes.get(cell.window, {}).get(layers) for one in self.held]
        values = [scored(one) for one in found if one is not None]
        if len(values) < len(found):
            return None
        mean = float(np.mean(values))
        return mean if self._by_likelihood else mean / full

    def _kept(self, cell: Cell, ranking: str, lazy: int, ranked: int) -> str:
        """It says where it is over fewer prompts than the ranking ranked: sweeps together may have other shares."""
        found = point(self.held, cell, ranking, lazy, scored)
        if found is None:
            return ""
        told = self._left(found).text
        if cell.task is None and not self._by_likelihood:
            tasks = (replace(cell, task=task) for task in self._sweep.header.spec.tasks)
            each = (point(self.held, one, ranking, lazy, scored) for one in tasks)
            kept = [one.ratio.mean for one in each if one is not None and one.full.mean > 0]
            told = f"{told}, {min(kept):.2f}" if kept else told
        return of_fewer(told, found.value.count, ranked)

    def _chance(self, cell: Cell, names: Sequence[str], lazy: int) -> str:
        """Of each prompt the mean of the random orders that it was ranked by."""
        values, full = [], []
        for one in self.held:
            found = [one.outcome(name, cell.window, lazy) for name in names]
            told = [scored(outcome) for outcome in found if outcome is not None]
            if told:
                values.append(float(np.mean(told)))
                full.append(scored(one.full))
        if not values or not (self._by_likelihood or any(full)):
            return NO_NUMBER
        return f"{np.mean(values) if self._by_likelihood else np.mean(values) / np.mean(full):.2f}"

    def _left(self, at: Point) -> Estimate:
        return at.value if self._by_likelihood else at.ratio


def _window_text(cell: Cell) -> str:
    return f"{cell.window.sink} + {cell.window.recent}"


def _prompts(count: int) -> str:
    return f"{count} prompt{'s' * (count != 1)}"


def _line(name: str, texts: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(texts)} |"
