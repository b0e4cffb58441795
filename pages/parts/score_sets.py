"""Sets of scores that can be laid over each other: those that this visit has seen, and those from files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np
import streamlit as st

from lighttransfer_core.errors import InvalidScoresError
from lighttransfer_core.score_sets import QuestionPlace, ScoreSet
from lighttransfer_core.types import LayerScores
from lighttransfer_core.version import __version__
from pages.parts import view
from pages.parts.recipe import Recipe
from pages.parts.results import Summary

MOST_DRAWN: Final = 6
_SEEN: Final = "score_sets"
_PROBLEMS: Final = "score_set_problems"
_MOST_KEPT: Final = 24


class Upload(Protocol):
    """A file that was uploaded."""

    name: str

    def getvalue(self) -> bytes: ...


def remember(recipe: Recipe, summary: Summary) -> list[str]:
    """Keeps a result's rankings for this visit; the names that they have, the one with the question first."""
    sides: list[tuple[QuestionPlace, LayerScores | None]] = [
        ("aware", summary.scores if summary.scores.informative else None),
        ("agnostic", view.scores_before(summary)),
    ]
    made = [score_set(recipe, summary, scores, question) for question, scores in sides if scores is not None]
    _keep({one.name: one for one in made if not _is_known(one)})
    return [one.name for one in made]


def _is_known(one: ScoreSet) -> bool:
    """A rerun of the page is no new result."""
    before = known().get(one.name)
    return before is not None and np.array_equal(before.scores.values, one.scores.values)


def score_set(recipe: Recipe, summary: Summary, scores: LayerScores, question: QuestionPlace) -> ScoreSet:
    """A result's scores with what they were made with."""
    window = f"{recipe.window.sink} + {recipe.window.recent}"
    prompt = recipe.prompt.short_name if recipe.rendering == "chat" else f"{recipe.prompt.short_name} (raw)"
    name = f"{prompt}, {recipe.model}, {recipe.metric}, window {window}, last {recipe.last}"
    return ScoreSet(
        name=name if question == "aware" else f"{name}, before the question",
        scores=scores,
        question=question,
        made={
            "prompt": f"{recipe.prompt.title[:120]} ({recipe.prompt.hash})",
            "rendering": recipe.rendering,
            "dtype": summary.spec.dtype,
            "device": summary.spec.device,
            "made": summary.recorded or datetime.now(tz=UTC).isoformat(timespec="seconds"),
            "version": __version__,
        },
    )


def known() -> dict[str, ScoreSet]:
    """By name, the latest last."""
    found: dict[str, ScoreSet] = st.session_state.get(_SEEN, {})
    return found


def problems() -> list[InvalidScoresError]:
    """What was wrong with the files that were uploaded last."""
    found: list[InvalidScoresError] = st.session_state.get(_PROBLEMS, [])
    return found


def take(files: Sequence[Upload]) -> list[str]:
    """Keeps the scores of files; their names. What is wrong with one is kept for `problems`."""
    added: dict[str, ScoreSet] = {}
    wrong = []
    for file in files:
        short = file.name[:60]
        try:
            one = ScoreSet.from_bytes(file.getvalue())
            if not one.scores.informative or not one.scores.convertible:
                raise InvalidScoresError("The scores rank no layer: their prompt fits the window.")
            added[f"{one.name} ({short})"] = one
        except InvalidScoresError as error:
            wrong.append(InvalidScoresError(f"In {short}: {error}"))
    _keep(added)
    st.session_state[_PROBLEMS] = wrong
    return list(added)


def _keep(more: dict[str, ScoreSet]) -> None:
    kept = {name: one for name, one in known().items() if name not in more}
    st.session_state[_SEEN] = dict(list({**kept, **more}.items())[-_MOST_KEPT:])
