"""The prefill of a recipe on a page: run it, watch it, cancel it, or show what there is already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import streamlit as st

from lighttransfer_core.errors import RunFailedError
from lighttransfer_core.service.specs import PrefillSpec, RunSpec
from lighttransfer_core.types import Window
from pages.parts import backend, errors, results, runs, status
from pages.parts.recipe import Recipe
from pages.parts.results import Summary
from viz.components.run_progress import run_progress

_RAN: Final = "prefill_ran"


@dataclass(frozen=True)
class View:
    """A recipe's prefill as one script run sees it: asked once, since it may end between two questions."""

    found: runs.Outcome
    summary: Summary | None

    @property
    def running(self) -> bool:
        return self.found.state == "running"


def look(recipe: Recipe, unasked: bool = False) -> View:
    """How the recipe's prefill stands, and its result, of now or recorded; draws nothing.

    With `unasked`, for pages that show a run's progress: where this visit has run the prompt and only what scores it
    has changed since, it is scored anew at once, unless that would take the place of another run of the visit.
    """
    spec = recipe.prefill_spec()
    found = runs.outcome(spec)
    if unasked and found.state == "none" and _may_score_anew(spec):
        runs.start(spec, recipe.prompt)
        found = runs.outcome(spec)
    if found.state == "done" and found.result is not None:
        st.session_state[_RAN] = _unscored(spec)
        return View(found, Summary.of(found.result))
    return View(found, results.recorded_summary(spec))


def forget(spec: RunSpec) -> None:
    """The backend has let go of it: it is run again when somebody asks for that."""
    runs.forget(spec)
    st.session_state.pop(_RAN, None)


def _may_score_anew(spec: PrefillSpec) -> bool:
    if st.session_state.get(_RAN) != _unscored(spec) or not backend.is_up():
        return False
    latest = runs.latest()
    alike = isinstance(latest, PrefillSpec) and _unscored(latest) == _unscored(spec)
    return latest is None or alike or runs.outcome(latest).state != "running"


def _unscored(spec: PrefillSpec) -> PrefillSpec:
    """What the kept prefill depends on."""
    return replace(spec, window=Window(), last=1, metric="")


def run_bar(recipe: Recipe, view: View, label: str = "Run") -> None:
    """The button that runs the prefill, or the progress of one that runs, or what became of it."""
    if view.running:
        run_progress(view.found.token, "Prefill: starting", key="prefill_run", age_s=view.found.age_s)
        return
    troubles(view.found)
    if view.found.state != "done":
        status.too_long_note(recipe)
        st.button(
            "Run again" if view.found.state in ("failed", "cancelled") else label,
            type="primary",
            key="run",
            on_click=runs.start,
            args=(recipe.prefill_spec(), recipe.prompt),
            disabled=not backend.is_up() or status.too_long(recipe),
            help="One full-attention pass over the prompt; everything else on these pages is computed from it.",
        )


def troubles(found: runs.Outcome) -> None:
    """What went wrong with a run, if anything did."""
    if found.state == "failed":
        errors.panel(found.error or RunFailedError("The run failed without saying why."))
    elif found.state == "cancelled":
        st.info(f"The run was cancelled. {found.reason or 'Nothing of it is kept.'}", icon=":material/cancel:")
    elif found.state == "unavailable" and found.error is not None:
        errors.panel(found.error)


def recorded_note(recorded: str | None, running: bool = False) -> None:
    """Says that what is on the page was recorded, and when and where."""
    if recorded:
        next_step = "Your own run takes its place when it is done." if running else "Run it to compute it here."
        st.info(f"**Recorded run**, {errors.plain(recorded)}. {next_step}", icon=":material/history:")


def require_summary(recipe: Recipe) -> Summary | None:
    """The result for a page that needs one; without it, the empty state that says how to get it."""
    view = look(recipe, unasked=True)
    if view.summary is None:
        if not view.running:
            st.markdown("No result for these choices yet. Run the prompt once; this page then shows at once.")
        run_bar(recipe, view, "Run the prompt")
    elif view.summary.recorded:
        _recorded_bar(recipe, view, view.summary.recorded)
    return view.summary


def _recorded_bar(recipe: Recipe, view: View, recorded: str) -> None:
    """What was recorded, with the button beside it; anything longer than the button stands below."""
    note, button = st.columns([4, 1], vertical_alignment="center")
    with note:
        recorded_note(recorded, view.running)
    with button if view.found.state == "none" else st.container():
        run_bar(recipe, view, "Run it here")
