"""Frontier: which ranking of the layers to use for a model, from quality measured over many prompts."""

from __future__ import annotations

from typing import cast

import streamlit as st

from lighttransfer_core.errors import InvalidInputError, InvalidPlanError
from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell, are_alike, compared
from lighttransfer_core.layer_sets import ALL
from lighttransfer_core.service.specs import SweepRunSpec
from pages.parts import errors, evidence, evidence_words, frame, own_plan, shell, sweep_controls, sweep_runs
from pages.parts.own_plan import OwnPlan
from pages.parts.picking import pick
from viz import frontier
from viz.components.chart import chart

recipe = shell.recipe()

frame.opening(
    "Frontier",
    "What a ranking of the layers is worth shows only over many prompts: how much of the full model’s score is left as "
    "more layers stream. Every ranking is tried on the same prompts, and beside controls that know nothing.",
)


def choice(found: list[Sweep]) -> tuple[Sweep, Cell]:
    """Which sweep, and which of its cells. All choices are in the address, as it shows them."""
    sweeps = evidence.by_title(found, lambda sweep: sweep.title)
    if (wanted := sweep_runs.wanted(sweeps) or evidence.asked_for(sweeps)) is not None:
        st.session_state.evidence = wanted
    sweep = sweeps[pick(st, "Results", "evidence", list(sweeps))]
    spec = sweep.header.spec
    windows = {f"{window.sink} + {window.recent}": window for window in spec.windows}
    boxes = st.columns(4)
    task = pick(boxes[0], "Task", "task", [*([ALL] if are_alike(sweep.results) else []), *spec.tasks])
    length = int(pick(boxes[1], "Prompt tokens", "length", list(map(str, evidence.lengths(sweep)))))
    window = pick(boxes[2], "Window", "window", list(windows))
    question = pick(
        boxes[3],
        "The question is",
        "asked",
        list(evidence.questions(sweep, length)),
        "aware: in the prompt that is scored and cut. agnostic: asked of the cut cache afterwards.",
    )
    return sweep, Cell(None if task == ALL else task, length, windows[window], cast(Question, question))


def lines(sweep: Sweep, cell: Cell, own: OwnPlan | InvalidPlanError | None) -> None:
    """The chart, with the rankings that the visitor wants to see."""
    names = compared(sweep)
    first = evidence.first_choices(sweep, cell)
    key = f"frontier_rankings_{sweep.header.identity[:8]}"
    shown = st.multiselect("Rankings", names, default=first, key=key, placeholder="Choose rankings")
    drawn = evidence.lines(sweep, cell, shown)
    if not drawn:
        st.info("No ranking is chosen, or none of them ranked these prompts.", icon=":material/stacked_line_chart:")
        return
    name = evidence.score_name(sweep, cell)
    dot = own.line() if isinstance(own, OwnPlan) else None
    full = drawn[0].marks[0].kv_bytes
    built = frontier.frontier(drawn, evidence.chance(sweep, cell), name, evidence.subject(cell), dot, full)
    chart(built, key="chart_frontier")


def known(found: evidence.Evidence) -> SweepRunSpec | None:
    """What the evidence says; the run that would put the sidebar's plan beside it, where that can be."""
    of_model, ranked = found.of(recipe.model), found.ranked()
    if not of_model:
        st.info(
            f"There is no evidence for {errors.plain(recipe.model)} yet: **measure it below**."
            + (
                " What is shown until then was measured on another model, and need not hold for this one."
                if ranked
                else ""
            ),
            icon=":material/science:",
        )
    if not ranked:
        return None
    pooled = found.together(recipe.model)
    sweep, cell = choice([*of_model, *pooled, *(one for one in ranked if one not in of_model)])
    is_mine = evidence.is_of(sweep, recipe.model)
    whose = "this model" if is_mine else errors.plain(sweep.header.model.name)
    st.header(f"Which ranking for {whose}?")
    evidence_words.verdict(sweep, cell, is_mine, pooled)
    st.header("Quality against memory")
    own = own_plan.of(recipe, sweep, cell, found) if is_mine and not sweep.parts else None
    lines(sweep, cell, own)
    if sweep.parts:
        st.caption(
            "Rankings count on all prompts that they were tried on, which are not the same for all; leads below are "
            "over those that both ranked. Your own plan can be put beside one sweep: choose it at *Results*."
        )
    spec = own_plan.section(own, found) if own is not None else None
    st.header("Ahead of chance, and of the others?")
    evidence_words.differences(sweep, cell)
    evidence_words.made(sweep)
    return spec


found = evidence.at_hand()
for problem in found.problems:
    is_of_file = isinstance(problem, InvalidInputError)
    errors.panel(problem, "Move the file out of the backend’s results folder, or mend it." if is_of_file else None)
tried = known(found)
st.header("Measure your own")
wanted = sweep_controls.controls(recipe)
if wanted is not None:
    measured = sweep_runs.held(wanted, found)
    st.markdown(errors.plain(sweep_controls.cost_words(wanted, found, measured)))
    sweep_runs.bar(wanted, measured, "Run the sweep", key="sweep")
    frame.snippet(
        sweep_controls.command(wanted),
        "Use from the command line",
        "bash",
        "On the backend’s machine it goes on with the same file.",
    )
sweep_runs.elsewhere(wanted, tried)
frame.lesson("frontier", "How a ranking is judged")
