"""Comparisons that are watched, changed and continued while they run, on a tiny model, through the application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core import errors
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.models.prompts import render_prompt
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from lighttransfer_core.session import Session
from lighttransfer_core.types import ConversionPlan, Window
from tests.service.conftest import speaking_to
from tests.service.test_service_engine import PLAN, TEXT, WINDOW, Loader, count_prefills

OTHER = ConversionPlan((0, 1, 2), WINDOW)
NEW_TOKENS = 12


@pytest.fixture
def engine(byte_tokenizer: PreTrainedTokenizerFast) -> JobEngine:
    return JobEngine(device="cpu", budget_nbytes=10**9, loader=Loader(byte_tokenizer))


@pytest.fixture
def client(engine: JobEngine) -> Iterator[BackendClient]:
    with speaking_to(engine) as speaking:
        yield speaking


@pytest.fixture
def spec(client: BackendClient) -> CompareSpec:
    prefill = PrefillSpec("tiny", client.put_prompt(TEXT), rendering="raw", window=WINDOW, last=8)
    return CompareSpec(prefill, (LaneSettings(PLAN),), NEW_TOKENS)


def expected(engine: JobEngine, plan: ConversionPlan) -> lt.Comparison:
    lm = engine.find("tiny")
    ids = render_prompt(lm.tokenizer, TEXT, "raw").input_ids
    return lt.compare(lt.run_prefill(lm, ids), None, plan, NEW_TOKENS)


def paused_at(client: BackendClient, spec: CompareSpec, step: int) -> tuple[str, Iterator[dict[str, Any]]]:
    """A run that has decoded exactly so many tokens and waits, and its events from there on."""
    token = client.start(spec).token
    client.command(token, Command("pause"))
    for _ in range(step):
        client.command(token, Command("step"))
    stream = client.events(token)
    seen = 0
    while seen < step:
        seen += next(stream)["kind"] == "step"
    return token, stream


def test_pause_step_and_continue(client: BackendClient, spec: CompareSpec, engine: JobEngine) -> None:
    token, stream = paused_at(client, spec, 3)
    assert client.status(token).state == "running"
    client.command(token, Command("step"))
    event = next(event for event in stream if event["kind"] in ("step", "done"))
    assert (event["kind"], event["step"]) == ("step", 3)
    client.command(token, Command("speed", tokens_per_s=1000.0))
    client.command(token, Command("continue"))
    rest = list(stream)
    assert {"paused": False, "tokens_per_s": 1000.0}.items() <= [e for e in rest if e["kind"] == "pace"][-1].items()
    assert [e["step"] for e in rest if e["kind"] == "step"] == list(range(4, NEW_TOKENS))
    answer = client.wait(token)["lanes"]["b"]["answers"][0]
    assert answer["tokens"] == list(expected(engine, PLAN).tokens_b)


def test_a_lane_is_begun_anew_in_the_middle_without_a_new_prefill(
    client: BackendClient, spec: CompareSpec, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_prefills(monkeypatch)
    token, stream = paused_at(client, spec, 5)
    client.command(token, Command("lane", lane=1, settings=LaneSettings(OTHER)))
    lane = next(event for event in stream if event["kind"] == "lane")
    assert (lane["lane"], lane["settings"]["plan"]["lazy_layers"]) == ("b", [0, 1, 2])
    caught_up = [next(stream) for _ in range(5)]
    assert [(e["step"], list(e["lanes"])) for e in caught_up] == [(step, ["b"]) for step in range(5)], "though paused"
    joined = client.start(CompareSpec(spec.prefill, (LaneSettings(OTHER),), NEW_TOKENS)).token
    client.cancel(joined)
    client.command(token, Command("continue"))
    result = client.wait(token)
    truth = expected(engine, OTHER)
    answer = result["lanes"]["b"]["answers"][0]
    assert (answer["tokens"], answer["first_divergence"]) == (list(truth.tokens_b), truth.first_divergence)
    assert answer["kl"] == pytest.approx(list(truth.kl), abs=1e-4)
    assert client.start(CompareSpec(spec.prefill, (LaneSettings(OTHER),), NEW_TOKENS)).state == "done"
    again = client.wait(client.start(spec).token)
    assert again["lanes"]["b"]["answers"][0]["tokens"] == list(expected(engine, PLAN).tokens_b)
    assert len(made) == 1


def test_a_lane_may_follow_the_reference_from_the_middle_on(client: BackendClient, spec: CompareSpec) -> None:
    token, _stream = paused_at(client, spec, 4)
    client.command(token, Command("lane", lane=1, settings=LaneSettings(PLAN, follow=True)))
    client.command(token, Command("continue"))
    lanes = client.wait(token)["lanes"]
    assert lanes["b"]["answers"][0]["tokens"] == lanes["a"]["answers"][0]["tokens"]


def test_a_plan_that_does_not_fit_is_refused_and_the_run_goes_on(client: BackendClient, spec: CompareSpec) -> None:
    token, _stream = paused_at(client, spec, 2)
    with pytest.raises(errors.InvalidPlanError):
        client.command(token, Command("lane", lane=1, settings=LaneSettings(ConversionPlan((9,), Window()))))
    client.command(token, Command("continue"))
    assert client.wait(token)["lanes"]["b"]["settings"]["plan"]["lazy_layers"] == list(PLAN.lazy_layers)


def test_a_cancelled_pause_ends(client: BackendClient, spec: CompareSpec, engine: JobEngine) -> None:
    token, stream = paused_at(client, spec, 2)
    client.cancel(token)
    assert list(stream)[-1]["kind"] == "cancelled"
    client.wait(client.start(spec).token)
    assert not engine.ledger._leases


def further(client: BackendClient, spec: CompareSpec, *texts: str) -> CompareSpec:
    turns = tuple(client.put_prompt(text) for text in texts)
    return CompareSpec(spec.prefill, spec.lanes, spec.max_new_tokens, turns=turns)


def told(events: list[dict[str, Any]], turn: int) -> list[tuple[Any, ...]]:
    """Texts, KL and candidates by step and lane: all but the times."""
    return [
        (event["step"], {name: (lane["token_id"], lane["top"]) for name, lane in event["lanes"].items()}, event["kl"])
        for event in events
        if event["kind"] == "step" and event["turn"] == turn
    ]


def test_a_further_question_continues_the_kept_lanes(
    client: BackendClient, spec: CompareSpec, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(client.events(client.start(spec).token))
    asked = further(client, spec, " and then?")
    token = client.start(asked).token
    events = list(client.events(token))
    assert [e["replayed"] for e in events if e["kind"] == "step" and e["turn"] == 0] == [True] * NEW_TOKENS
    assert told(events, 0) == told(first, 0)
    turn = next(e for e in events if e["kind"] == "turn")
    assert (turn["text"], turn["tokens"]) == (" and then?", 10)
    kept = client.wait(token)
    seen = len(TEXT) + 2 * NEW_TOKENS + 10 - 1
    assert kept["lanes"]["a"]["seen_tokens"] == events[-2]["lanes"]["a"]["seen_tokens"] == seen
    engine.ledger.prefills.evict(10**12)
    anew = list(client.events(client.start(asked).token))
    assert not any(e.get("replayed") for e in anew)
    for turn_number in (0, 1):
        for (_, lanes, kl), (_, lanes_anew, kl_anew) in zip(
            told(events, turn_number), told(anew, turn_number), strict=True
        ):
            assert {n: v[0] for n, v in lanes.items()} == {n: v[0] for n, v in lanes_anew.items()}
            assert kl == pytest.approx(kl_anew, abs=1e-5)
    longer = further(client, spec, " and then?", " why")
    assert len(client.wait(client.start(longer).token)["lanes"]["b"]["answers"]) == 3


def test_a_session_file_holds_the_run_and_reads_back(client: BackendClient, spec: CompareSpec) -> None:
    token = client.start(spec).token
    events = list(client.events(token))
    session = client.session(token)
    assert (session.texts, session.versions["lighttransfer"]) == ((TEXT,), lt.version.__version__)
    assert [{"cursor": n, **event} for n, event in enumerate(session.events, 1)] == events
    assert CompareSpec.from_dict(session.spec) == spec
    assert session.plans == {"a": ConversionPlan(), "b": PLAN}
    assert session.begin["input_ids"]
    again = Session.from_bytes(session.to_json().encode())
    assert again == session
    assert json.loads(again.to_json()) == json.loads(session.to_json())
