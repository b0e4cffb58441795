"""The sweeps of a visit as runs: started, followed, stopped, and gone on with."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.errors import DeadlineError, InvalidInputError
from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.service.specs import SweepRunSpec
from pages.parts import backend, errors, evidence, prefill, runs
from viz.components.run_progress import run_progress
from viz.units import count_text

_STARTED: Final = "sweep_started"
_WANTED: Final = "sweep_wanted"


def held(spec: SweepRunSpec, found: evidence.Evidence) -> int:
    """How many prompts of a sweep the backend has measured already."""
    asked = set(spec.sweep.keys)
    return sum(
        len(asked & sweep.done)
        for sweep in found.measured
        if evidence.is_of(sweep, spec.model) and _is_same(sweep, spec.sweep)
    )


def _is_same(sweep: Sweep, spec: SweepSpec) -> bool:
    """Whether results are those of a spec, whatever the number of prompts."""
    return sweep.header.spec.of(1) == spec.of(1)


def bar(spec: SweepRunSpec, measured: int, label: str, key: str, primary: bool = True) -> None:
    """The progress of the run, or what became of it and the button that starts it or goes on with it."""
    found = runs.outcome(spec)
    if found.state == "running":
        _progress(spec, found, key)
        return
    _troubles(found)
    if measured >= spec.sweep.prompts:
        st.markdown(f"All measured: {count_text(spec.sweep.prompts, 'prompt')}. To go on, ask for more of them.")
        return
    st.button(
        f"Go on: {label[:1].lower()}{label[1:]}" if measured else label,
        type="primary" if primary else "secondary",
        key=key,
        on_click=_start,
        args=(spec,),
        disabled=not backend.is_up(),
        help="Takes the place of whatever else of yours runs now. It can be stopped and gone on with at any time.",
    )


def elsewhere(*shown: SweepRunSpec | None) -> None:
    """A sweep of this visit that runs with other choices than those on the page."""
    spec: SweepRunSpec | None = st.session_state.get(_STARTED)
    if spec is None or spec in shown:
        return
    found = runs.outcome(spec)
    if found.state == "running":
        st.markdown("A sweep with other choices is running:")
        _progress(spec, found, "sweep_elsewhere")


def _progress(spec: SweepRunSpec, found: runs.Outcome, key: str) -> None:
    run_progress(found.token, "Sweep: starting", key=f"{key}_run", news="example", age_s=found.age_s)
    sweep = spec.sweep
    st.caption(
        errors.plain(
            f"{spec.model}, {', '.join(sweep.tasks)}, seeds from {sweep.first_seed:,}. Every prompt is kept as it "
            "ends. The sweep goes on while you look at other pages, and stops some seconds after you close them all "
            "or start another run."
        )
    )


def _troubles(found: runs.Outcome) -> None:
    if found.state == "cancelled":
        st.info(f"The sweep was stopped. {found.reason} What it has found is kept.", icon=":material/pause_circle:")
    elif isinstance(found.error, DeadlineError):
        errors.panel(found.error, "Go on with it.")
    elif isinstance(found.error, InvalidInputError):
        errors.panel(found.error, "Change the choices above.")
    else:
        prefill.troubles(found)


def _start(spec: SweepRunSpec) -> None:
    st.session_state[_STARTED] = st.session_state[_WANTED] = spec
    runs.start(spec)


def wanted(titled: dict[str, Sweep]) -> str | None:
    """The title of the sweep that was just started, once it has results: said once, so that another can be chosen."""
    spec: SweepRunSpec | None = st.session_state.get(_WANTED)
    if spec is None:
        return None
    title = next((title for title, sweep in titled.items() if _is_same(sweep, spec.sweep)), None)
    if title is not None:
        del st.session_state[_WANTED]
    return title
