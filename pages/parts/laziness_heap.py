"""Laziness as the paper uses it: the queue that decides during the prefill which layers are cut, replayed."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.heap import HeapMoment, replay
from lighttransfer_core.layer_sets import layers_kept_full
from pages.parts import frame, prefill, view
from pages.parts.laziness_snippets import heap_snippet
from pages.parts.metrics import metrics
from pages.parts.recipe import Recipe
from pages.parts.results import Summary
from viz.components.heap_replay import heap_replay
from viz.units import bytes_text, percent_text

DEFAULT_PERCENT = 50
_NOT_ON_THE_FLY: Final = {
    "probe": "This ranking reads on after the prompt, so it is there only when the prompt has passed; the replay shows "
    "what the queue does with its values. While the prompt runs, `reach_effect` ranks best.",
    "control": "This ranking does not look at the prompt; the replay shows what the queue does with its values.",
}


def draw(recipe: Recipe) -> None:
    """The view."""
    percent = int(
        st.slider(
            "Convertible layers that may stay full (%)",
            0,
            100,
            DEFAULT_PERCENT,
            5,
            key="full",
            bind="query-params",
            help="How many places the queue has, halves rounded up.",
        )
    )
    found = prefill.require_summary(recipe)
    if found is not None:
        if found.scores.informative:
            _replay(found, percent / 100)
        else:
            view.nothing_to_rank(found)
        if note := _NOT_ON_THE_FLY.get(metrics()[recipe.metric].kind):
            st.caption(note)
    frame.lesson("heap", "How the queue decides while the prompt runs")
    frame.snippet(heap_snippet(recipe, percent / 100, metrics()[recipe.metric].kind == "prompt"))


def _replay(summary: Summary, keep_full: float) -> None:
    """What it comes to in words, then the replay."""
    spec, scores = summary.spec, summary.scores
    moments, full = replay(spec, scores, keep_full), replay(spec, scores, 1.0)
    peak, end = max(map(_held, moments)), _held(moments[-1])
    without = max(map(_held, full))
    room = layers_kept_full(keep_full, len(scores.convertible))
    st.markdown(
        f"With the queue the cache never holds more than **{bytes_text(peak)}** during the prefill, and "
        f"**{bytes_text(end)}** when the prompt has passed. Choosing layers only after a full prefill would need "
        f"{bytes_text(without)}: the queue saves {percent_text(1 - peak / without if without else 0.0)} of that peak. "
        "Bytes are by formula; the library counts the same from its tensors."
    )
    heap_replay(spec, scores, moments, full, room, key="heap")


def _held(moment: HeapMoment) -> int:
    return sum(moment.kv_bytes)
