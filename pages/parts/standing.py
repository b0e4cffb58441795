"""What is known of a ranking on the model at hand, in a small table: from the sweeps, or that there is none."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from lighttransfer_core.frontier.orders import CALIBRATED
from lighttransfer_core.frontier.pooling import together
from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.frontier.summary import Cell
from lighttransfer_core.frontier.verdict import KEPT, Verdict
from lighttransfer_core.types import Window
from pages.parts import errors, evidence
from pages.parts.recipe import Recipe
from viz.units import count_text

Verdicts = dict[tuple[Window, int], Verdict]
"""By window and prompt length."""


@dataclass(frozen=True)
class Known:
    """What is known of a ranking at the measured window that is nearest to the sidebar's, by prompt length.

    Attributes
    ----------
    by_length, later
        With the question in the prompt, and with the question asked of the cut cache.
    """

    model: str
    window: Window
    yours: Window
    by_length: dict[int, Verdict]
    later: dict[int, Verdict]

    @property
    def table(self) -> str:
        """What was measured, and a row for each length and way to ask."""
        window = f"{self.window.sink:,} + {self.window.recent:,}"
        lines = []
        for asked, known in (("in the prompt", self.by_length), ("of the cut cache", self.later)):
            rows = [f"| {asked} | {length:,} | {_reach(found)} |" for length, found in known.items()]
            lines += rows or [f"| {asked} | – | – | not measured |"]
        said = (
            f"Measured on {errors.plain(self.model)} at window {window}: with so many lazy layers every task keeps at "
            f"least {KEPT:.0%} of the full model’s score."
        )
        if self.window != self.yours:
            said += f" Your window {self.yours.sink:,} + {self.yours.recent:,} was not measured."
        return "\n".join([said, "", "| Asked | Tokens | Lazy | Weakest task there |", "|---|---|---|---|", *lines])


def standing(recipe: Recipe) -> None:
    """How far the chosen metric goes, made anew for each prompt."""
    known = nearest(recipe, recipe.metric, sweeps_of(recipe))
    if known is None:
        model = errors.plain(recipe.model)
        st.caption(f"How much {model} keeps by this ranking has not been measured yet: the page **Frontier** can.")
        return
    st.caption(f"{known.table}\n\nThe page **Frontier** has the other rankings.")


def standing_over_prompts(recipe: Recipe) -> None:
    """How far its mean over calibration prompts goes, as one order for all prompts; nothing where that is not known."""
    known = nearest(recipe, f"{CALIBRATED}{recipe.metric}", sweeps_of(recipe))
    if known is not None:
        st.caption(f"One order for all prompts, by the mean over calibration prompts. {known.table}")


def sweeps_of(recipe: Recipe) -> list[Sweep]:
    """Sweeps of the same tasks together: the more prompts, the more they say."""
    return together(evidence.at_hand().of(recipe.model))


def nearest(recipe: Recipe, ranking: str, sweeps: list[Sweep]) -> Known | None:
    """What is known of a ranking at the nearest window, for each way to ask from the sweep that tells most of it there;
    None where there are too few prompts."""
    aware = [_verdicts(sweep, ranking, "aware") for sweep in sweeps]
    agnostic = [_verdicts(sweep, ranking, "agnostic") for sweep in sweeps]
    windows = {window for known in (*aware, *agnostic) for window, _ in known}
    if not windows:
        return None
    window = min(windows, key=lambda one: (_apart(one, recipe.window), one.recent, one.sink))
    return Known(recipe.model, window, recipe.window, _most(aware, window), _most(agnostic, window))


def _most(known: list[Verdicts], window: Window) -> dict[int, Verdict]:
    """By length, of the one that has most of them at this window."""
    at_window = ({length: found for (of, length), found in one.items() if of == window} for one in known)
    return max(at_window, key=len, default={})


def _verdicts(sweep: Sweep, ranking: str, question: Question) -> Verdicts:
    """Where there are enough prompts."""
    spec = sweep.header.spec
    return {
        (window, length): found
        for window in spec.windows
        for length in sorted(spec.lengths)
        for found in evidence.judged(sweep, Cell(None, length, window, question))
        if found.ranking == ranking
    }


def _apart(one: Window, other: Window) -> int:
    return abs(one.sink - other.sink) + abs(one.recent - other.recent)


def _reach(found: Verdict) -> str:
    """The share, and the weakest task at it; where none of those tried is kept, at the smallest of them."""
    kept, lazy = found.weakest.ratio, count_text(found.weakest.lazy, "layer")
    further = " or more" if found.may_go_further else ""
    share, there = (f"{found.share:.0%}{further}", "") if found.share else (f"fewer than {lazy}", f" with {lazy}")
    text = f"{kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}]{there}, {found.task}, {count_text(kept.count, 'prompt')}"
    return f"{share} | {text}"
