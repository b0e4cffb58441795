"""What is known of a ranking on the model at hand, in a sentence: from the sweeps, or that there is none."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import CALIBRATED, Question
from lighttransfer_core.frontier.summary import Cell
from lighttransfer_core.frontier.verdict import KEPT, Verdict
from lighttransfer_core.types import Window
from pages.parts import errors, evidence
from pages.parts.recipe import Recipe

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
    by_length: dict[int, Verdict]
    later: dict[int, Verdict]

    @property
    def text(self) -> str:
        """A sentence without its beginning, and one on the other way to ask where that was tried."""
        window = f"{self.window.sink:,} + {self.window.recent:,}"
        said = f"{errors.plain(self.model)} at window {window}, the question in the prompt: {_told(self.by_length)}."
        return said + (f" With the question asked of the cut cache: {_told(self.later)}." if self.later else "")


def standing(recipe: Recipe) -> None:
    """How far the chosen metric goes, made anew for each prompt."""
    known = nearest(recipe, recipe.metric, evidence.at_hand().of(recipe.model))
    if known is None:
        model = errors.plain(recipe.model)
        st.caption(f"How much {model} keeps by this ranking has not been measured yet: the page **Frontier** can.")
        return
    st.caption(f"Measured on {known.text} The page **Frontier** has the other rankings.")


def standing_over_prompts(recipe: Recipe) -> None:
    """How far its mean over calibration prompts goes, as one order for all prompts; nothing where that is not known."""
    known = nearest(recipe, f"{CALIBRATED}{recipe.metric}", evidence.at_hand().of(recipe.model))
    if known is not None:
        st.caption(f"One order for all prompts, by the mean over calibration prompts, measured on {known.text}")


def nearest(recipe: Recipe, ranking: str, sweeps: list[Sweep]) -> Known | None:
    """What is known of a ranking, from the sweep that tells most of it; None where there are too few prompts."""
    aware, agnostic = _most(sweeps, ranking, "aware"), _most(sweeps, ranking, "agnostic")
    if not aware:
        return None
    window = min((window for window, _ in aware), key=lambda one: _apart(one, recipe.window))
    at_window = (
        {length: found for (of, length), found in known.items() if of == window} for known in (aware, agnostic)
    )
    return Known(recipe.model, window, *at_window)


def _most(sweeps: list[Sweep], ranking: str, question: Question) -> Verdicts:
    """The verdicts of the sweep that has most of them."""
    return max((_verdicts(sweep, ranking, question) for sweep in sweeps), key=len, default={})


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


def _told(by_length: dict[int, Verdict]) -> str:
    return "; ".join(f"at {length:,} tokens {_reach(found)}" for length, found in by_length.items())


def _reach(found: Verdict) -> str:
    kept = found.weakest.ratio
    weakest = f"{kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}] on {found.task}, {kept.count} prompts"
    if found.share == 0:
        lazy = found.weakest.lazy
        return f"less than {KEPT:.0%} of the full model’s score with {lazy} lazy layers already ({weakest})"
    return f"at least {KEPT:.0%} of the full model’s score with up to {found.share:.0%} of the layers lazy ({weakest})"
