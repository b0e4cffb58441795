"""Frontier: which ranking of the layers to use for a model, from quality measured over many prompts."""

from __future__ import annotations

from types import ModuleType
from typing import cast

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell
from lighttransfer_core.layer_sets import ALL
from pages.parts import errors, evidence, evidence_words, frame, shell
from viz import frontier
from viz.components.chart import chart

shell.recipe()

st.title("Frontier")
st.markdown(
    "What a ranking of the layers is worth shows only over many prompts: how much of the full model’s score is left as "
    "more layers stream. Every ranking is tried on the same prompts, and beside controls that know nothing."
)


def choice(found: list[Sweep]) -> tuple[Sweep, Cell]:
    """Which sweep, and which of its cells. All choices are in the address, as it shows them."""
    sweeps = {evidence.title(sweep): sweep for sweep in found}
    sweep = sweeps[pick(st, "Results", "evidence", list(sweeps))]
    spec = sweep.header.spec
    windows = {f"{window.sink} + {window.recent}": window for window in spec.windows}
    boxes = st.columns(4)
    task = pick(boxes[0], "Task", "task", [ALL, *spec.tasks])
    length = pick(boxes[1], "Prompt tokens", "length", [str(length) for length in spec.lengths])
    window = pick(boxes[2], "Window", "window", list(windows))
    question = pick(
        boxes[3],
        "The question is",
        "asked",
        list(spec.questions),
        "aware: in the prompt that is scored and cut. agnostic: asked of the cut cache afterwards.",
    )
    return sweep, Cell(None if task == ALL else task, int(length), windows[window], cast(Question, question))


def pick(place: DeltaGenerator | ModuleType, label: str, key: str, options: list[str], help: str | None = None) -> str:
    """A box whose choice is in the address; what the results do not have gives way to the first option."""
    if st.session_state.get(key, options[0]) not in options:
        del st.session_state[key]
    if st.query_params.get(key, options[0]) not in options:
        del st.query_params[key]
    return str(place.selectbox(label, options, key=key, bind="query-params", help=help))


def lines(sweep: Sweep, cell: Cell) -> None:
    """The chart, with the rankings that the visitor wants to see."""
    names = evidence.choices(sweep)
    first = evidence.first_choices(sweep, cell)
    shown = st.multiselect("Rankings", names, default=first, key="frontier_rankings", placeholder="Choose rankings")
    drawn = evidence.lines(sweep, cell, shown)
    if not drawn:
        st.info("No ranking is chosen, or none of them ranked these prompts.", icon=":material/stacked_line_chart:")
        return
    name = evidence.score_name(sweep, cell)
    chart(frontier.frontier(drawn, evidence.chance(sweep, cell), name, evidence.subject(cell)), key="chart_frontier")


sweeps, wrong = evidence.sweeps()
for error in wrong:
    errors.panel(error)
if sweeps:
    sweep, cell = choice(sweeps)
    st.header("Which ranking for this model?")
    evidence_words.verdict(sweep, cell)
    st.header("Quality against memory")
    lines(sweep, cell)
    st.header("Beyond chance, and beyond the paper?")
    evidence_words.differences(sweep, cell)
    evidence_words.made(sweep)
else:
    st.info(
        "There is no evidence yet. Run a sweep on the command line, as below; its file appears here.",
        icon=":material/science:",
    )
st.header("Measure your own")
st.markdown(
    "A sweep can be stopped and started again at any time; its results so far are on this page. Files are looked for "
    f"in `{evidence.folders()[-1]}`, or in the folder that `{evidence.VARIABLE}` names."
)
st.code(evidence_words.command(), language="bash", wrap_lines=True)
frame.lesson("frontier", "How a ranking is judged")
