"""A comparison as a file: everything that was asked and everything that happened, to be replayed without the model.

Plain data; it knows neither torch nor the backend. What is read from a file is checked before anything uses it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Self

from lighttransfer_core.errors import InvalidSessionError, LightTransferError
from lighttransfer_core.events import LANE_NAMES
from lighttransfer_core.types import ConversionPlan, JsonRecord, ModelSpec

FORMAT: Final = "lighttransfer-session"
VERSION: Final = 1
MAX_NBYTES: Final = 16 * 2**20
_MAX_EVENTS: Final = 200_000


@dataclass(frozen=True)
class Session(JsonRecord):
    """One comparison that is over.

    Attributes
    ----------
    made
        When it was saved, ISO 8601 in UTC.
    versions
        Of the software that ran it, by name.
    spec
        The run's spec: model, prompt's hash, plans, seed.
    texts
        The prompt, then the further questions.
    events
        Every event of the run, in order; the first tells the exact token ids, the model and the lanes.
    result
        What the run came to.
    """

    made: str
    versions: dict[str, str]
    spec: dict[str, Any]
    texts: tuple[str, ...]
    events: tuple[dict[str, Any], ...]
    result: dict[str, Any]
    format: str = FORMAT
    version: int = VERSION

    @property
    def begin(self) -> dict[str, Any]:
        """The event that tells what runs."""
        return next(event for event in self.events if event["kind"] == "begin")

    @property
    def model(self) -> ModelSpec:
        return ModelSpec.from_dict(self.begin["model"])

    @property
    def plans(self) -> dict[str, ConversionPlan]:
        """By lane, as they were at the end."""
        lanes = self.result["lanes"]
        return {name: ConversionPlan.from_dict(lanes[name]["settings"]["plan"]) for name in LANE_NAMES if name in lanes}

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises InvalidSessionError for what is no session, is damaged, or is too large."""
        if len(data) > MAX_NBYTES:
            raise InvalidSessionError(f"The file has {len(data):,} bytes; a session has at most {MAX_NBYTES:,}.")
        try:
            found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidSessionError(
                "The file is not JSON text. Open a session that was downloaded from the Compare page."
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InvalidSessionError(
                "The file is not a saved session. Open one that was downloaded from the Compare page."
            )
        if found.get("version") != VERSION:
            raise InvalidSessionError(
                f"The session has version {str(found.get('version'))[:20]}, and this program reads {VERSION}: open it "
                "with the release that saved it."
            )
        try:
            _check_shape(found)
            session = cls.from_dict({**found, "texts": tuple(found["texts"]), "events": tuple(found["events"])})
            _check_facts(session)
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration, LightTransferError) as error:
            raise InvalidSessionError(
                f"The session is damaged ({type(error).__name__}: {error}): save it anew."
            ) from error
        return session


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_shape(found: dict[str, Any]) -> None:
    texts, events = found["texts"], found["events"]
    _require(isinstance(found["made"], str) and len(found["made"]) < 64, "made")
    _require(all(isinstance(value, str) for value in found["versions"].values()), "versions")
    _require(isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts), "texts")
    _require(isinstance(events, list) and len(events) <= _MAX_EVENTS, "events")
    for event in events:
        _check_event(event)


def _check_facts(session: Session) -> None:
    _require(set(session.plans) == set(session.begin["lanes"]), "lanes")
    _require(session.model.num_layers > 0, "model")
    for lane in session.result["lanes"].values():
        _require(len(lane["answers"]) == len(session.texts), "answers")
        _require(all(isinstance(answer["text"], str) for answer in lane["answers"]), "answers")
        _require(all(_is_count(value) for value in (*lane["kv_bytes"], *lane["kv_formula"])), "bytes")


def _check_event(event: Any) -> None:
    _require(isinstance(event, dict) and isinstance(event["kind"], str), "event")
    if event["kind"] != "step":
        return
    _require(_is_count(event["step"]) and _is_count(event["turn"]), "step")
    for name, lane in event["lanes"].items():
        _require(name in LANE_NAMES and isinstance(lane["text"], str) and _is_count(lane["token_id"]), "lane")
        _require(_is_seconds(lane["latency_s"]) and all(_is_count(value) for value in lane["kv_bytes"]), "lane")
        _require(all(isinstance(text, str) for _token, text, _logprob in lane["top"]), "candidates")
    _require(all(_is_seconds(value) for value in event["kl"].values()), "kl")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"“{what}” has another form than a session's")
