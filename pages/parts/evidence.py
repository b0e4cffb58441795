"""Sweeps that are at hand: those that come with the app, and those that the backend has in its folder of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidInputError, LightTransferError
from lighttransfer_core.frontier.pooling import part_of, together
from lighttransfer_core.frontier.results import SUFFIX, Sweep, merged, parse_sweep, read_sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell, Point, compared, point, random_orders, rankings, scored
from lighttransfer_core.frontier.verdict import Verdict, verdicts
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.models.catalogue import find
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.service.answers import SweepEntry
from lighttransfer_core.tasks import list_tasks
from lighttransfer_core.types import ConversionPlan, Window
from pages.parts import backend
from viz.frontier import LIKELIHOOD, SCORE, Line, Mark

Titled = TypeVar("Titled")

SHIPPED: Final = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "sweeps"
PAPER: Final = "lazy_ratio"
_FEW: Final = 5
_SHOWN: Final = 8
_ASKED: Final = "evidence_asked"


@dataclass(frozen=True)
class Evidence:
    """What is at hand.

    Attributes
    ----------
    sweeps
        Of all files together; several files of one question are one sweep.
    measured
        Those of the backend alone.
    problems
        What is wrong with files that cannot be read.
    """

    sweeps: tuple[Sweep, ...]
    measured: tuple[Sweep, ...]
    problems: tuple[LightTransferError, ...]

    def of(self, model: str) -> list[Sweep]:
        """The sweeps of a model that measure rankings, first those that tried the recommended one."""
        found = [sweep for sweep in self.ranked() if is_of(sweep, model)]
        return sorted(found, key=lambda sweep: RECOMMENDED_METRIC not in compared(sweep))

    def together(self, model: str) -> list[Sweep]:
        """Those sweeps as one, where they ask the same tasks; nothing where none is of several."""
        return [sweep for sweep in together(self.of(model)) if sweep.parts]

    def ranked(self) -> list[Sweep]:
        """Those that measure rankings, and not one plan only."""
        return [sweep for sweep in self.sweeps if compared(sweep)]


def at_hand() -> Evidence:
    """Everything, now; what the backend has is missing as long as it does not answer."""
    shipped, problems = _shipped()
    measured = list[Sweep]()
    listed = backend.ask(lambda client: client.sweeps())
    for entry in [] if isinstance(listed, LightTransferError) else listed:
        try:
            measured.append(_kept(entry))
        except LightTransferError as error:
            problems.append(error)
    mine = merged(measured)
    return Evidence(tuple(merged([*shipped, *mine])), tuple(mine), tuple(problems))


def _shipped() -> tuple[list[Sweep], list[LightTransferError]]:
    found, problems = list[Sweep](), list[LightTransferError]()
    for file in sorted(SHIPPED.glob(f"*{SUFFIX}")):
        try:
            found.append(_read(str(file), file.stat().st_mtime_ns, file.stat().st_size))
        except InvalidInputError as error:
            problems.append(error)
    return found, problems


@st.cache_resource(show_spinner=False, max_entries=8)
def _read(file: str, changed_ns: int, nbytes: int) -> Sweep:
    """Read anew once it has changed: streamlit tells calls apart by all arguments but those with an underscore."""
    return read_sweep(Path(file))


def _kept(entry: SweepEntry) -> Sweep:
    if entry.problem:
        raise InvalidInputError(entry.problem)
    return _fetched(entry.name, entry.changed_ns, entry.nbytes)


@st.cache_resource(show_spinner=False, max_entries=16)
def _fetched(name: str, changed_ns: int, nbytes: int) -> Sweep:
    """Fetched anew once it has changed."""
    return parse_sweep(backend.client().sweep_text(name), name)


def is_of(sweep: Sweep, model: str) -> bool:
    """Whether a sweep was measured on the model that the sidebar calls so."""
    entry = find(model)
    return sweep.header.model.name in {model, *({entry.hub_id} if entry is not None else ())}


def can_go_on(sweep: Sweep) -> bool:
    """Whether its questions can be asked from here: those of a file are known to the command line alone."""
    return set(sweep.header.spec.tasks) <= set(list_tasks())


def by_title(found: Sequence[Titled], title_of: Callable[[Titled], str]) -> dict[str, Titled]:
    """Each under a line of its own, which does not change while something is added to it: the second of a title has
    its number behind it."""
    named: dict[str, Titled] = {}
    for one in found:
        title, number = title_of(one), 2
        while title in named:
            title, number = f"{title_of(one)} ({number})", number + 1
        named[title] = one
    return named


def asked_for(titled: dict[str, Sweep]) -> str | None:
    """The sweep that the address of a visit named before the backend was there to have it, once it has; said once."""
    asked = st.query_params.get("evidence")
    if "evidence" not in st.session_state and asked is not None and asked not in titled and not backend.is_up():
        st.session_state[_ASKED] = asked
    late: str | None = st.session_state.get(_ASKED)
    if late not in titled:
        return None
    del st.session_state[_ASKED]
    return late


def lengths(sweep: Sweep) -> list[int]:
    """Those of a sweep that hold prompts already; all of them, where none does."""
    there = {one.key.length for one in sweep.results}
    return [length for length in sweep.header.spec.lengths if length in there or not there]


def questions(sweep: Sweep, length: int) -> list[Question]:
    """How prompts of a length were asked; all ways, where there are none yet."""
    there = {one.key.question for one in sweep.results if one.key.length == length}
    return [way for way in sweep.header.spec.questions if way in there or not there]


def subject(cell: Cell) -> str:
    """What a chart is about."""
    task = cell.task or "all tasks"
    return f"{task}, {cell.length:,} tokens, window {cell.window.sink} + {cell.window.recent}, question-{cell.question}"


def lines(sweep: Sweep, cell: Cell, names: list[str]) -> list[Line]:
    """A line per ranking, from the full model to all layers streaming."""
    return [Line(name, marks) for name in names if (marks := _marks(sweep, cell, name))]


def chance(sweep: Sweep, cell: Cell) -> list[list[Mark]]:
    """The lines of the random orders."""
    found = [_marks(sweep, cell, name) for name in random_orders(sweep.results)]
    return [marks for marks in found if marks]


def _marks(sweep: Sweep, cell: Cell, ranking: str) -> list[Mark]:
    model, layers = sweep.header.model, sweep.header.model.convertible_layers
    marks = []
    for share in (0.0, *sorted(sweep.header.spec.shares), 1.0):
        lazy = layers_lazy(share, len(layers))
        found = at(sweep, cell, ranking, lazy)
        if found is not None:
            plan = ConversionPlan(layers[:lazy], cell.window)
            marks.append(Mark(share, kv_bytes(model, plan, cell.length or 0), found.value))
    return marks


def at(sweep: Sweep, cell: Cell, ranking: str, lazy: int) -> Point | None:
    """What a ranking keeps at a number of lazy layers; None where it ranked nothing there."""
    return _at(sweep, _known(sweep), cell, ranking, lazy)


@st.cache_data(show_spinner=False, max_entries=4096)
def _at(_sweep: Sweep, known: str, cell: Cell, ranking: str, lazy: int) -> Point | None:
    return point(_sweep.results, cell, ranking, lazy, scored)


def judged(sweep: Sweep, cell: Cell) -> list[Verdict]:
    """How far every ranking goes at a cell's length and window, over all its tasks."""
    return _judged(sweep, _known(sweep), cell.length or 0, cell.window, cell.question)


@st.cache_data(show_spinner=False, max_entries=64)
def _judged(_sweep: Sweep, known: str, length: int, window: Window, question: Question) -> list[Verdict]:
    return verdicts(_sweep, length, window, question)


def _known(sweep: Sweep) -> str:
    """What was asked and how much of it is answered: numbers are kept while no example is added."""
    return " ".join([part_of(sweep), *sweep.parts])


def first_choices(sweep: Sweep, cell: Cell) -> list[str]:
    """Of the rankings of a cell all, where they are few; else the one that goes furthest, the recommended one, the
    paper's, depth order, and what was calibrated, as long as that is not too much."""
    ranked = set(rankings([one for one in sweep.results if cell.holds(one)]))
    names = [name for name in compared(sweep) if name in ranked]
    if len(names) <= _FEW:
        return names
    best = [one.ranking for one in judged(sweep, cell)[:1]]
    calibrated = [one.name for one in sweep.header.spec.orders]
    wanted = dict.fromkeys([*best, RECOMMENDED_METRIC, PAPER, "depth_early", *calibrated])
    return [name for name in wanted if name in names][:_SHOWN] or names[:4]


def score_name(sweep: Sweep, cell: Cell) -> str:
    """What the chart's vertical axis is."""
    by_likelihood = any(cell.holds(one) and one.full.score is None for one in sweep.results)
    return LIKELIHOOD if by_likelihood else SCORE
