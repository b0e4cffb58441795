"""What is known of a ranking on the model at hand, in a sentence: from the sweeps, or that there is none."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.summary import Cell
from lighttransfer_core.frontier.verdict import KEPT, Verdict
from lighttransfer_core.types import Window
from pages.parts import errors, evidence
from pages.parts.recipe import Recipe


def standing(recipe: Recipe) -> None:
    """How far the chosen metric went where it was measured, at the window that is nearest to the sidebar's."""
    known = max((_verdicts(sweep, recipe.metric) for sweep in evidence.at_hand().of(recipe.model)), key=len, default={})
    model = errors.plain(recipe.model)
    if not known:
        st.caption(f"How much {model} keeps by this ranking has not been measured yet: the page **Frontier** can.")
        return
    window = min((window for window, _ in known), key=lambda one: _apart(one, recipe.window))
    told = [f"at {length:,} tokens {_reach(found)}" for (of, length), found in known.items() if of == window]
    st.caption(
        f"Measured on {model} at window {window.sink:,} + {window.recent:,}: {'; '.join(told)}. "
        "The page **Frontier** has the other rankings."
    )


def _verdicts(sweep: Sweep, metric: str) -> dict[tuple[Window, int], Verdict]:
    """By window and prompt length, where there are enough prompts."""
    spec = sweep.header.spec
    return {
        (window, length): found
        for window in spec.windows
        for length in sorted(spec.lengths)
        for found in evidence.judged(sweep, Cell(None, length, window))
        if found.ranking == metric
    }


def _apart(one: Window, other: Window) -> int:
    return abs(one.sink - other.sink) + abs(one.recent - other.recent)


def _reach(found: Verdict) -> str:
    kept = found.weakest.ratio
    weakest = f"{kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}] on {found.task}, {kept.count} prompts"
    if found.share == 0:
        return f"less than {KEPT:.0%} of the full model’s score at every share tried ({weakest})"
    return f"at least {KEPT:.0%} of the full model’s score with up to {found.share:.0%} of the layers lazy ({weakest})"
