"""Sweeps that are at hand: those that come with the app, and those in the folder of the visitor's own results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.frontier.results import SUFFIX, Sweep, merged, read_sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell, point, rankings, scored
from lighttransfer_core.frontier.verdict import Verdict, verdicts
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.types import ConversionPlan, Window
from pages.parts.metrics import metrics
from viz.frontier import LIKELIHOOD, SCORE, Line, Mark

SHIPPED: Final = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "sweeps"
PAPER: Final = "lazy_ratio"
VARIABLE: Final = "LIGHTTRANSFER_RESULTS"
DEFAULT_FOLDER: Final = Path("results") / "sweeps"


def folders() -> list[Path]:
    """Where results are looked for."""
    return [SHIPPED, Path(os.environ.get(VARIABLE, str(DEFAULT_FOLDER)))]


def sweeps() -> tuple[list[Sweep], list[InvalidInputError]]:
    """Every sweep at hand, and what is wrong with files that hold none."""
    files = [file for folder in folders() if folder.is_dir() for file in sorted(folder.glob(f"*{SUFFIX}"))]
    found, wrong = [], []
    for file in files:
        try:
            found.append(_read(str(file), file.stat().st_mtime_ns, file.stat().st_size))
        except InvalidInputError as error:
            wrong.append(error)
    return merged(found), wrong


@st.cache_resource(show_spinner=False, max_entries=32)
def _read(file: str, _changed_ns: int, _size: int) -> Sweep:
    return read_sweep(Path(file))


def title(sweep: Sweep) -> str:
    """A sweep in one line, for a choice among several."""
    spec, header = sweep.header.spec, sweep.header
    lengths = ", ".join(f"{length:,}" for length in spec.lengths)
    return f"{header.model.name}, {', '.join(spec.tasks)}, {lengths} tokens, {len(sweep.results)} prompts"


def subject(cell: Cell) -> str:
    """What a chart is about."""
    task = cell.task or "all tasks"
    return f"{task}, {cell.length:,} tokens, window {cell.window.sink} + {cell.window.recent}, question-{cell.question}"


def lines(sweep: Sweep, cell: Cell, names: list[str]) -> list[Line]:
    """A line per ranking, from the full model to all layers streaming."""
    return [Line(name, marks) for name in names if (marks := _marks(sweep, cell, name))]


def chance(sweep: Sweep, cell: Cell) -> list[list[Mark]]:
    """The lines of the random orders."""
    found = [_marks(sweep, cell, name) for name in rankings(sweep.results) if name.startswith("random_")]
    return [marks for marks in found if marks]


def _marks(sweep: Sweep, cell: Cell, ranking: str) -> list[Mark]:
    model, layers = sweep.header.model, sweep.header.model.convertible_layers
    marks = []
    for share in (0.0, *sorted(sweep.header.spec.shares), 1.0):
        lazy = layers_lazy(share, len(layers))
        found = point(sweep.results, cell, ranking, lazy, scored)
        if found is not None:
            plan = ConversionPlan(layers[:lazy], cell.window)
            marks.append(Mark(share, kv_bytes(model, plan, cell.length or 0), found.value))
    return marks


def judged(sweep: Sweep, cell: Cell) -> list[Verdict]:
    """How far every ranking goes at a cell's length and window, over all its tasks."""
    return _judged(sweep, title(sweep), cell.length or 0, cell.window, cell.question)


@st.cache_data(show_spinner=False, max_entries=64)
def _judged(_sweep: Sweep, _title: str, length: int, window: Window, question: Question) -> list[Verdict]:
    """Kept while no example is added, since the title counts them."""
    return verdicts(_sweep, length, window, question)


def choices(sweep: Sweep) -> list[str]:
    """The rankings that can be drawn as lines; random orders are drawn as a band."""
    return [name for name in rankings(sweep.results) if not name.startswith("random_")]


def first_choices(sweep: Sweep, cell: Cell) -> list[str]:
    """The ranking that goes furthest, the recommended one, the paper's, what was calibrated, and depth order."""
    names, best = choices(sweep), [one.ranking for one in judged(sweep, cell)[:1]]
    calibrated = [one.name for one in sweep.header.spec.orders]
    wanted = dict.fromkeys([*best, next(iter(metrics())), PAPER, *calibrated, "depth_early"])
    return [name for name in wanted if name in names] or names[:4]


def score_name(sweep: Sweep, cell: Cell) -> str:
    """What the chart's vertical axis is."""
    by_likelihood = any(cell.holds(one) and one.full.score is None for one in sweep.results)
    return LIKELIHOOD if by_likelihood else SCORE
