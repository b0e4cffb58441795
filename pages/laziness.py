"""Laziness: the layers ranked, and how far the ranking can be trusted: on one prompt, over settings, over prompts."""

from __future__ import annotations

from typing import Final

import streamlit as st

from pages.parts import (
    frame,
    laziness_beside,
    laziness_heap,
    laziness_prompt,
    laziness_prompts,
    laziness_sensitivity,
    prefill,
    score_sets,
    shell,
)
from pages.parts.metrics import metrics
from pages.parts.picking import switch

VIEWS: Final = {
    "This prompt": laziness_prompt.draw,
    "Sensitivity": laziness_sensitivity.draw,
    "Heap": laziness_heap.draw,
    "Over prompts": laziness_prompts.draw,
    "Beside others": laziness_beside.draw,
}

recipe = shell.recipe()
metric = metrics()[recipe.metric]

frame.opening("Laziness")
view = switch(st, "View", "view", VIEWS, label_visibility="collapsed")
with frame.for_readers("metric"):
    st.markdown(
        f"**{metric.title}**: {metric.meaning} Higher is lazier. Window {recipe.window.sink:,} + "
        f"{recipe.window.recent:,} tokens, last {recipe.last} prompt tokens."
    )
seen = prefill.look(recipe, unasked=True)
if seen.summary is not None:
    score_sets.remember(recipe, seen.summary)
VIEWS[view](recipe)
