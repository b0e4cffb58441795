"""Session files that are none, are damaged, or try something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lighttransfer_core import session as session_module
from lighttransfer_core.errors import InvalidSessionError
from lighttransfer_core.session import Session
from lighttransfer_core.types import ConversionPlan

SESSION_FILE = Path(__file__).resolve().parents[1] / "assets" / "recorded" / "default_run.json"


def whole() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SESSION_FILE.read_text(encoding="utf-8"))["session"]
    return found


def test_the_recorded_run_is_a_session() -> None:
    session = Session.from_bytes(json.dumps(whole()).encode())
    assert set(session.plans) == {"a", "b"}
    assert session.plans["a"] == ConversionPlan()
    assert session.begin["num_tokens"] == len(session.begin["input_ids"])


def test_a_lane_that_was_begun_anew_tells_its_answers_again() -> None:
    data = whole()
    last = max(number for number, event in enumerate(data["events"]) if event["kind"] == "step")
    steps = [event for event in data["events"] if event["kind"] == "step"]
    anew = [{**event, "lanes": {"b": event["lanes"]["b"]}} for event in steps if "b" in event["lanes"]]
    begun = {"kind": "lane", "lane": "b", **_begin(data)["lanes"]["b"]}
    data["events"][last + 1 : last + 1] = [begun, *anew]
    Session.from_bytes(json.dumps(data).encode())
    data["events"].remove(anew[-1])
    with pytest.raises(InvalidSessionError, match="do not tell the answers of lane B"):
        Session.from_bytes(json.dumps(data).encode())


def _begin(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(event for event in data["events"] if event["kind"] == "begin")
    return found


def _first_step(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(event for event in data["events"] if event["kind"] == "step")
    return found


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("result"),
        lambda d: d.pop("texts"),
        lambda d: d.update(texts=[]),
        lambda d: d.update(texts=[3]),
        lambda d: d.update(events=[]),
        lambda d: d.update(events={}),
        lambda d: d["events"].append(7),
        lambda d: d["events"].append({"kind": None}),
        lambda d: d.update(versions=[]),
        lambda d: d.update(made=None),
        lambda d: _begin(d).update(prefill_s=10**400),
        lambda d: d["result"].pop("lanes"),
        lambda d: d["result"]["lanes"].pop("b"),
        lambda d: d["result"]["lanes"]["a"].update(kv_bytes=[-1]),
        lambda d: d["result"]["lanes"]["b"].update(answers=[]),
        lambda d: d["result"]["lanes"]["b"]["answers"][0].update(latency_s=["0.1"]),
        lambda d: d["result"]["lanes"]["b"]["answers"][0].update(kl=[None]),
        lambda d: d["result"]["lanes"]["b"]["answers"][0].update(first_divergence="3"),
        lambda d: d["result"]["lanes"]["b"]["answers"][0]["tokens"].append(1),
        lambda d: d.update(events=d["events"][:8]),
        lambda d: d.update(events=[event for event in d["events"] if event["kind"] != "begin"]),
        lambda d: d["result"]["lanes"]["b"]["settings"]["plan"].update(lazy_layers=["<script>"]),
        lambda d: d["result"]["lanes"]["b"]["settings"]["plan"].update(window=7),
        lambda d: _begin(d).update(num_tokens="many"),
        lambda d: _begin(d).update(input_ids=["<b>"]),
        lambda d: _begin(d).pop("prefill_s"),
        lambda d: _begin(d)["lanes"]["a"].update(caps=[None]),
        lambda d: _begin(d)["lanes"]["b"].update(caps=["9"] * 30),
        lambda d: d["events"].append({"kind": "turn", "turn": 1, "text": "one more than there are"}),
        lambda d: d["events"].append({"kind": "lane", "lane": "z", **_begin(d)["lanes"]["b"]}),
        lambda d: d["events"].append({"kind": "lane", "lane": "b"}),
        lambda d: _first_step(d).update(step=-1),
        lambda d: _first_step(d).update(step=10**9),
        lambda d: _first_step(d).update(turn=5),
        lambda d: _first_step(d)["lanes"]["a"].pop("seen_tokens"),
        lambda d: _first_step(d)["lanes"]["a"].update(top=[[1, "x", "y"]]),
        lambda d: _first_step(d).update(step=True),
        lambda d: _first_step(d).update(lanes=None),
        lambda d: _first_step(d)["lanes"].update(x=_first_step(d)["lanes"]["a"]),
        lambda d: _first_step(d)["lanes"]["a"].update(text=["<b>"]),
        lambda d: _first_step(d)["lanes"]["a"].update(latency_s="1"),
        lambda d: _first_step(d)["lanes"]["a"].update(kv_bytes=["1"]),
        lambda d: _first_step(d)["lanes"]["a"].update(top=[[1, 2]]),
        lambda d: _first_step(d)["kl"].update(b="0"),
    ],
)
def test_a_damaged_session_is_refused_typed(damage: Callable[[dict[str, Any]], object]) -> None:
    data = whole()
    damage(data)
    with pytest.raises(InvalidSessionError, match="damaged"):
        Session.from_bytes(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": NaN}', "not JSON"),
        (b"[]", "not a saved session"),
        (b'{"lazy_layers": []}', "not a saved session"),
        (b'{"format": "lighttransfer-session", "version": 99}', "version 99"),
    ],
)
def test_what_is_no_session_is_refused_typed(data: bytes, message: str) -> None:
    with pytest.raises(InvalidSessionError, match=message):
        Session.from_bytes(data)


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_NBYTES", 10)
    with pytest.raises(InvalidSessionError, match="at most 10"):
        Session.from_bytes(b"x" * 11)
