"""Frontier: which ranking of the layers to use for a model, from quality measured over many prompts."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.summary import Cell
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
    """Which sweep, and which of its cells."""
    titles = [evidence.title(sweep) for sweep in found]
    chosen = st.selectbox("Results", titles, key="frontier_sweep")
    sweep = found[titles.index(chosen)]
    spec = sweep.header.spec
    boxes = st.columns(4)
    task = boxes[0].selectbox("Task", ["all", *spec.tasks], key="frontier_task")
    length = boxes[1].selectbox("Prompt tokens", spec.lengths, key="frontier_length")
    windows = {f"{window.sink} + {window.recent}": window for window in spec.windows}
    window = windows[boxes[2].selectbox("Window", list(windows), key="frontier_window")]
    question = boxes[3].selectbox(
        "The question is",
        spec.questions,
        key="frontier_question",
        help="aware: in the prompt that is scored and cut. agnostic: asked of the cut cache afterwards.",
    )
    return sweep, Cell(None if task == "all" else str(task), int(length), window, question)


def lines(sweep: Sweep, cell: Cell) -> None:
    """The chart, with the rankings that the visitor wants to see."""
    names = evidence.choices(sweep)
    shown = st.multiselect(
        "Rankings", names, default=evidence.first_choices(names), key="frontier_rankings", placeholder="Choose rankings"
    )
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
