"""Scores as a file: those of one prompt, or an average, with what they were made with.

Plain data; it knows no model. What is read from a file is checked before anything uses it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from lighttransfer_core.errors import InvalidScoresError, LightTransferError
from lighttransfer_core.types import JsonRecord, LayerScores

FORMAT: Final = "lighttransfer-scores"
VERSION: Final = 1
MAX_NBYTES: Final = 4 * 2**20
_MOST_LAYERS: Final = 10_000
_MOST_TEXT: Final = 300
_MOST_NOTES: Final = 20
_MOST: Final = 10**12

QuestionPlace = Literal["aware", "agnostic"]
"""Whether the question stood in the prompt that was scored, or the prompt was scored up to it."""


@dataclass(frozen=True, eq=False)
class ScoreSet(JsonRecord):
    """Scores with a name.

    Attributes
    ----------
    name
        What charts call them.
    made
        What they were made with, in words by topic, such as the prompt and the software's version.
    """

    name: str
    scores: LayerScores
    question: QuestionPlace = "aware"
    made: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT
    version: int = VERSION

    def __post_init__(self) -> None:
        if isinstance(self.scores, dict):
            object.__setattr__(self, "scores", LayerScores.from_dict(self.scores))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises InvalidScoresError for what is no file of scores, is damaged, or is too large."""
        if len(data) > MAX_NBYTES:
            raise InvalidScoresError(f"The file has {len(data):,} bytes; a file of scores has at most {MAX_NBYTES:,}.")
        try:
            found = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InvalidScoresError(
                "The file is not JSON text. Open scores that were downloaded from the Laziness page or written by the "
                "command score."
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InvalidScoresError(
                "The file holds no scores. Open some that were downloaded from the Laziness page or written by the "
                "command score."
            )
        if found.get("version") != VERSION:
            raise InvalidScoresError(
                f"The scores have version {str(found.get('version'))[:20]}, and this program reads {VERSION}: open "
                "them with the release that saved them."
            )
        try:
            _check_set(found)
            return cls.from_dict(found)
        except (KeyError, TypeError, ValueError, AttributeError, LightTransferError) as error:
            raise InvalidScoresError(
                f"The scores are damaged ({type(error).__name__}: {error}): save them anew."
            ) from error


def _check_set(found: dict[str, Any]) -> None:
    _require(_is_text(found["name"]) and bool(found["name"].strip()), "name")
    _require(found["question"] in ("aware", "agnostic"), "question")
    made = found["made"]
    _require(len(made) <= _MOST_NOTES and all(map(_is_text, (*made.keys(), *made.values()))), "made")
    _check_scores(found["scores"])


def _check_scores(scores: dict[str, Any]) -> None:
    layers = len(scores["values"])
    _require(_is_text(scores["metric"]) and isinstance(scores["informative"], bool), "metric")
    _require(all(_is_count(scores[name]) for name in ("last", "num_tokens", "num_prompts")), "last")
    window = scores["window"]
    _require(_is_count(window["sink"], least=0) and _is_count(window["recent"]), "window")
    _require(0 < layers <= _MOST_LAYERS, "values")
    for name in ("values", "sink", "recent", "rest", "learned_sink"):
        _require((name == "learned_sink" and scores[name] is None) or _is_row(scores[name], layers), name)
    for name in ("per_head", "per_query"):
        _require(scores[name] is None or _is_table(scores[name], layers), name)
    convertible = scores["convertible"]
    _require(all(_is_count(layer, least=0) and layer < layers for layer in convertible), "convertible")
    _require(convertible == sorted(set(convertible)), "convertible")
    _check_model(scores["model"], layers)


def _check_model(model: dict[str, Any] | None, layers: int) -> None:
    if model is None:
        return
    _require(_is_text(model["name"]) and (model["revision"] is None or _is_text(model["revision"])), "model")
    _require(all(_is_count(model[name]) for name in ("num_heads", "num_kv_heads", "head_dim")), "model")
    _require(model["num_layers"] == layers, "model")


def _is_row(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(_is_number, value))


def _is_table(value: Any, rows: int) -> bool:
    width = len(value[0])
    return isinstance(value, list) and len(value) == rows and width > 0 and all(_is_row(row, width) for row in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_TEXT


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST  # no nan


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"“{what}” has another form than that of scores")
