"""Attention: every layer and head of the prompt, from the whole triangle down to one token pair."""

from __future__ import annotations

import streamlit as st

from pages.parts import frame, prefill, runs, shell, view
from pages.parts.snippets import attention_snippet
from viz.components.attention_map import attention_map, layer_frames

recipe = shell.recipe()
spec = recipe.prefill_spec()

st.title("Attention")
st.markdown(
    "Each cell is the weight that a query (row) gives to a key (column), computed from the model’s own queries and "
    "keys when you look at it. Wheel to zoom, drag to pan; **?** lists the keys."
)


def keep_state() -> None:
    """The explorer's state goes into the address."""
    st.session_state.map = st.session_state.explorer.state


seen = prefill.look(recipe)
if seen.found.state == "done" and seen.found.token is not None and seen.summary is not None:
    plan = view.plan_or_panel(recipe, seen.summary)
    scores = seen.summary.scores
    attention_map(
        seen.found.token,
        recipe.prompt.key[:16],
        (recipe.window.sink, recipe.window.recent),
        layer_frames(
            scores.values if scores.informative else None,
            seen.summary.spec.num_layers,
            plan.lazy_layers if plan else (),
        ),
        st.session_state.get("map", st.query_params.get("map", "")),
        key="explorer",
        on_state=keep_state,
        on_gone=lambda: runs.forget(spec),
    )
else:
    st.markdown("The map is computed from a run of now. Run the prompt once; every head can then be explored.")
    prefill.run_bar(recipe, seen, "Run the prompt")
with st.expander("This view as text, for the address", icon=":material/link:"):
    st.text_input("View", key="map", bind="query-params", max_chars=300, label_visibility="collapsed")
frame.lesson("attention", "How to read an attention map")
frame.snippet(attention_snippet(recipe))
