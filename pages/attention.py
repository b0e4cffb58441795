"""Attention: every layer and head of the prompt, from the whole triangle down to one token pair."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from pages.parts import address, comparing, frame, prefill, runs, shell, view
from pages.parts.defaults import DEFAULT_NEW_TOKENS
from pages.parts.picking import switch
from pages.parts.results import Summary
from pages.parts.snippets import attention_snippet
from viz.components.attention_map import attention_map, layer_frames
from viz.components.run_progress import run_progress

TEXTS: Final = {"prompt": None, "answer A": "a", "answer B": "b"}

recipe = shell.recipe()

frame.opening(
    "Attention",
    "Each cell is the weight that a query (row) gives to a key (column), computed from the model’s own queries and "
    "keys when you look at it. Wheel to zoom, drag to pan; **?** lists the keys.",
)


def keep_state() -> None:
    """The explorer's state goes into the address."""
    st.session_state.map = st.session_state.explorer.state


def explorer(summary: Summary, spec: PrefillSpec | CompareSpec, token: str, lane: str | None) -> None:
    """The component, over a prefill or over a lane of a comparison."""
    plan = view.plan_or_panel(recipe, summary)
    attention_map(
        token,
        recipe.prompt.short_name,
        (recipe.window.sink, recipe.window.recent),
        layer_frames(
            summary.scores.values if summary.scores.informative else None,
            summary.spec.num_layers,
            plan.lazy_layers if plan else (),
        ),
        st.session_state.get("map", st.query_params.get("map", "")),
        key="explorer",
        lane=lane,
        on_state=keep_state,
        on_gone=lambda: prefill.forget(spec),
    )


def answer(summary: Summary, lane: str, tokens: int) -> None:
    """The prompt with what a lane of the comparison decoded, once there is one."""
    plan = view.plan_or_panel(recipe, summary)
    if plan is None:
        return
    spec: CompareSpec = recipe.compare_spec(plan, tokens)
    found = runs.outcome(spec)
    if found.state == "done" and found.token is not None:
        explorer(summary, spec, found.token, lane)
    elif found.state == "running":
        run_progress(found.token, "Decoding both answers", key="compare_run", age_s=found.age_s)
    else:
        prefill.troubles(found)
        st.markdown("Nothing is decoded yet for this plan. The comparison decodes both answers from the same prefill.")
        comparing.run_button(spec, found, recipe)


seen = prefill.look(recipe, unasked=True)
if seen.found.state == "done" and seen.found.token is not None and seen.summary is not None:
    choice, count = st.columns([3, 2], vertical_alignment="bottom")
    text = switch(
        choice,
        "Text",
        "rows",
        TEXTS,
        "The prompt alone, or with the answer that the full model (A) or the plan (B) decoded after it.",
    )
    lane = TEXTS[text]
    if lane is None:
        explorer(seen.summary, recipe.prefill_spec(), seen.found.token, None)
    else:
        tokens = count.number_input(
            "New tokens, at most",
            *address.NEW_TOKENS_RANGE,
            value=DEFAULT_NEW_TOKENS,
            key="tokens",
            bind="query-params",
        )
        answer(seen.summary, lane, int(tokens))
else:
    st.markdown("The map needs the queries and keys of a run. Run the prompt once; every head can then be explored.")
    prefill.run_bar(recipe, seen, "Run the prompt")
with st.expander("This view as text, for the address", icon=":material/link:"):
    st.text_input("View", key="map", bind="query-params", max_chars=300, label_visibility="collapsed")
frame.lesson("attention", "How to read an attention map")
shape = seen.summary.spec if seen.summary is not None else None
frame.snippet(attention_snippet(recipe, str(st.session_state.get("map") or ""), shape))
