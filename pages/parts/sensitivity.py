"""What is varied in the sensitivity view, and the scores that a kept prefill gives for it. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import streamlit as st

from lighttransfer_core.agreement import agreement
from lighttransfer_core.score_sets import QuestionPlace
from lighttransfer_core.service.answers import ScoreQuestion, ScoresRequest
from lighttransfer_core.types import LayerScores, Window
from pages.parts import backend, runs
from pages.parts.recipe import Recipe
from viz.rankings import Setting

PARAMETERS: Final = ("Recent tokens", "Sink tokens", "Last queries")
_RECENT: Final = (60, 124, 252, 508, 1020, 2044)
_SINK: Final = (0, 1, 2, 4, 8, 16)
_LAST: Final = (1, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Varied:
    """The values of one parameter, each with its question; the sidebar's own is among them."""

    parameter: str
    now: int
    values: tuple[int, ...]
    left_out: tuple[int, ...]
    questions: tuple[ScoreQuestion, ...]

    @property
    def windows(self) -> tuple[Window, ...]:
        """In the order of the values."""
        return tuple(one.window for one in self.questions)


def varied(recipe: Recipe, parameter: str, num_tokens: int) -> Varied:
    """The values of a parameter that leave the prompt longer than the window, around the recipe's setting."""
    now = _now(recipe)
    current, offered = {
        PARAMETERS[0]: (recipe.window.recent, _RECENT),
        PARAMETERS[1]: (recipe.window.sink, _SINK),
        PARAMETERS[2]: (recipe.last, _LAST),
    }[parameter]
    values = sorted({current, *offered})
    asked = {value: _with(now, parameter, value) for value in values}
    kept = tuple(value for value in values if asked[value].window.size < num_tokens and asked[value].last <= num_tokens)
    left_out = tuple(value for value in values if value not in kept)
    return Varied(parameter, current, kept, left_out, tuple(asked[value] for value in kept))


def _now(recipe: Recipe) -> ScoreQuestion:
    return ScoreQuestion(recipe.window, recipe.last, recipe.metric)


def _with(asked: ScoreQuestion, parameter: str, value: int) -> ScoreQuestion:
    if parameter == PARAMETERS[0]:
        return replace(asked, window=Window(asked.window.sink, value))
    if parameter == PARAMETERS[1]:
        return replace(asked, window=Window(value, asked.window.recent))
    return replace(asked, last=value)


def settings(varied_values: Varied, aware: Sequence[LayerScores], agnostic: Sequence[LayerScores]) -> list[Setting]:
    """Every value with its rankings; before the question there may be none."""
    reference = aware[varied_values.values.index(varied_values.now)]
    found = []
    for place, value in enumerate(varied_values.values):
        inside = aware[place] if aware[place].informative else None
        outside = agnostic[place] if agnostic and agnostic[place].informative else None
        found.append(
            Setting(
                value,
                value == varied_values.now,
                inside,
                outside,
                None if inside is None else agreement(reference, inside),
                None if outside is None else agreement(reference, outside),
            )
        )
    return found


def scores(identity: str, token: str, asked: Sequence[ScoreQuestion], question: QuestionPlace) -> list[LayerScores]:
    """The kept prefill's answers, with the question in its prompt or before it. Raises PrefillGoneError."""
    request = ScoresRequest(tuple(replace(one, question=question) for one in asked))
    return _scores(identity, request.to_json(), request.questions, token)


@st.cache_data(show_spinner=False, max_entries=128)
def _scores(identity: str, request: str, _questions: tuple[ScoreQuestion, ...], _token: str) -> list[LayerScores]:
    """Equal prefills answer alike, whoever's run they are of."""
    return backend.client().scores(_token, _questions, runs.held().visitor)
