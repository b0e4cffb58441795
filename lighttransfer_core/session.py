"""A comparison as a file: everything that was asked and everything that happened, to be replayed without the model.

Plain data; it knows neither torch nor the backend. What is read from a file is checked before anything uses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from lighttransfer_core.errors import InvalidSessionError, LightTransferError
from lighttransfer_core.events import LANE_NAMES, LaneSettings
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
        When the run was asked for, ISO 8601 in UTC.
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
    def settings(self) -> dict[str, LaneSettings]:
        """By lane, as they were at the end."""
        lanes = self.result["lanes"]
        return {name: LaneSettings.from_dict(lanes[name]["settings"]) for name in LANE_NAMES if name in lanes}

    @property
    def plans(self) -> dict[str, ConversionPlan]:
        """By lane, as they were at the end."""
        return {name: one.plan for name, one in self.settings.items()}

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
        except (KeyError, TypeError, ValueError, AttributeError, LightTransferError) as error:
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
        _check_event(event, most_turns=len(texts), most_steps=len(events))
    _require(any(event["kind"] == "begin" for event in events), "events")


def _check_facts(session: Session) -> None:
    begin = session.begin
    _require(all(_is_count(begin[name]) for name in ("num_tokens", "max_new_tokens")), "begin")
    _require(_is_seconds(begin["prefill_s"]) and all(_is_count(token) for token in begin["input_ids"]), "begin")
    for lane in begin["lanes"].values():
        _check_lane(lane, session.model.num_layers)
    _require(set(session.plans) == set(session.begin["lanes"]), "lanes")
    _require(session.model.num_layers > 0, "model")
    told = _told_tokens(session.events)
    for name, lane in session.result["lanes"].items():
        _require(len(lane["answers"]) == len(session.texts), "answers")
        for turn, answer in enumerate(lane["answers"]):
            _check_answer(answer)
            if answer["tokens"] != told.get((name, turn), []):
                raise ValueError(f"its events do not tell the answers of lane {name.upper()}")
        _require(all(_is_count(value) for value in (*lane["kv_bytes"], *lane["kv_formula"])), "bytes")


def _told_tokens(events: Iterable[dict[str, Any]]) -> dict[tuple[str, int], list[int]]:
    """The tokens of each lane's answers, by lane and turn; a lane that was begun anew tells all of its own again."""
    told: dict[tuple[str, int], dict[int, int]] = {}
    for event in events:
        if event["kind"] == "lane":
            told = {place: steps for place, steps in told.items() if place[0] != event["lane"]}
        elif event["kind"] == "step":
            for name, lane in event["lanes"].items():
                told.setdefault((name, event["turn"]), {})[event["step"]] = lane["token_id"]
    return {place: [steps[step] for step in sorted(steps)] for place, steps in told.items()}


def _check_answer(answer: dict[str, Any]) -> None:
    _require(isinstance(answer["text"], str) and all(_is_count(token) for token in answer["tokens"]), "answers")
    _require(all(_is_seconds(value) for value in (*answer["latency_s"], *answer["kl"])), "answers")
    _require(answer["first_divergence"] is None or _is_count(answer["first_divergence"]), "answers")


def _check_lane(lane: dict[str, Any], num_layers: int) -> None:
    """What a lane is, as the first event or one in the middle tells it."""
    LaneSettings.from_dict(lane["settings"])
    _require(_is_count(lane["row_nbytes"]) and len(lane["caps"]) == num_layers, "lane")
    _require(all(cap is None or _is_count(cap) for cap in lane["caps"]), "lane")


def _check_event(event: Any, most_turns: int, most_steps: int) -> None:
    """A player counts turns and steps up to what an event says, so that must be no more than there can be."""
    _require(isinstance(event, dict) and isinstance(event["kind"], str), "event")
    if event["kind"] == "turn":
        _require(isinstance(event["text"], str) and _is_count(event["turn"]) and event["turn"] < most_turns, "turn")
    if event["kind"] == "lane":
        _require(event["lane"] in LANE_NAMES, "lane")
        _check_lane(event, len(event["caps"]))
    if event["kind"] != "step":
        return
    _require(_is_count(event["step"]) and event["step"] < most_steps, "step")
    _require(_is_count(event["turn"]) and event["turn"] < most_turns, "step")
    for name, lane in event["lanes"].items():
        _require(name in LANE_NAMES and isinstance(lane["text"], str) and _is_count(lane["token_id"]), "lane")
        _require(_is_seconds(lane["latency_s"]) and _is_count(lane["seen_tokens"]), "lane")
        _require(all(_is_count(value) for value in lane["kv_bytes"]), "lane")
        _require(all(_is_count(t) and isinstance(text, str) and _is_number(p) for t, text, p in lane["top"]), "top")
    _require(all(_is_seconds(value) for value in event["kl"].values()), "kl")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    if isinstance(value, int):  # one of hundreds of digits is no float
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"“{what}” has another form than a session's")
