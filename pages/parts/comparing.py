"""One comparison on the Compare page: start it, follow it, ask on, and keep it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lighttransfer_core.service.specs import CompareSpec
from pages.parts import backend, lanes, prefill, results, runs
from pages.parts.errors import plain
from pages.parts.recipe import Recipe
from viz.components.live_panel import live_panel
from viz.units import count_text


def run_button(spec: CompareSpec, found: runs.Outcome, recipe: Recipe) -> None:
    """Starts the comparison, unless it runs or is there already."""
    if found.state in ("running", "done"):
        return
    again = found.state in ("failed", "cancelled")
    st.button(
        "Run again" if again else "Run comparison",
        type="primary",
        key="run_compare",
        on_click=runs.start,
        args=(spec, recipe.prompt, lanes.texts(spec)),
        disabled=not backend.is_up(),
        help="Decodes every lane from the kept prefill; the prefill itself is computed only where it is gone.",
    )


def panel(spec: CompareSpec, found: runs.Outcome, recipe: Recipe) -> None:
    """The lanes as they stream, or finished, or recorded; otherwise what to do."""
    prefill.troubles(found)
    recorded = None if found.state in ("running", "done") else results.recorded_session(spec)
    if found.state not in ("running", "done") and recorded is None:
        st.markdown("No comparison of this plan yet. Press **Run comparison**; the text appears as it is decoded.")
        return
    prefill.recorded_note(results.record()["made"] if recorded else None)
    live_panel(
        name="recorded",
        key="lanes",
        token=None if recorded else found.token,
        events=recorded.events if recorded else None,
        changeable=backend.is_up(),
        on_lane=lanes.take_lane,
        on_copy=lanes.take_copy,
    )
    result = recorded.result if recorded else found.result
    if result is None:
        return
    _verdict(result, spec, recipe)
    if found.state == "done" and found.token is not None:
        _ask_on(spec)
        _again()
        _keep(found.token, recipe)


def _verdict(result: dict[str, Any], spec: CompareSpec, recipe: Recipe) -> None:
    """Whether each lane's first answer holds what the prompt asks for; one that reads A's text says nothing of it."""
    if not recipe.prompt.expected:
        return

    def gives(answer: dict[str, Any]) -> str:
        if recipe.prompt.answered(answer["text"]):
            return "gives it"
        if len(answer["tokens"]) >= spec.max_new_tokens:
            return f"had not given it after {count_text(spec.max_new_tokens, 'token')}, the limit"
        return "does not give it"

    said = [
        f"{name.upper()} {'reads A’s text' if lane['settings']['follow'] else gives(lane['answers'][0])}"
        for name, lane in result["lanes"].items()
    ]
    st.markdown(f"Expected answer: **{plain(recipe.prompt.expected[0])}**. {'; '.join(said)}.")


def _ask_on(spec: CompareSpec) -> None:
    """A further question to every lane, on the caches that they have now."""
    with st.form("ask_on", border=False, clear_on_submit=False):
        field, button = st.columns([6, 1], vertical_alignment="bottom")
        field.text_input(
            "Ask every lane a further question",
            key="question",
            max_chars=2000,
            placeholder="Lazy layers answer from what their window still holds.",
        )
        button.form_submit_button("Ask", on_click=lanes.ask, width="stretch")
    if spec.turns:
        said = "the further question" if len(spec.turns) == 1 else f"all {len(spec.turns)} further questions"
        st.button(f"Leave out {said}", key="forget_questions", type="tertiary", on_click=lanes.forget_questions)


def _again() -> None:
    """The same lanes in a run of their own."""
    st.button(
        "Run again",
        key="rerun_compare",
        on_click=lanes.take_copy,
        disabled=not backend.is_up(),
        help="Decodes the lanes once more, as a run of its own: the text is the same, the times are new.",
    )


def _keep(token: str, recipe: Recipe) -> None:
    """The run as a file."""
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{recipe.prompt.short_name}-{recipe.model}")
    address = f"/api/runs/{token}/session"
    st.html(
        f'<a class="download" href="{address}" download="session-{name}.json">Save this run as a session file</a> '
        "<span>It holds the prompt, every event and all settings, and replays on a machine without the model "
        "(page Sessions).</span>"
    )
