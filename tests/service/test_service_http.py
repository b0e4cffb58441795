from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lighttransfer_core import errors
from lighttransfer_core.cost.benchmark import FILE_VARIABLE, processor_name
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.service import app as application
from lighttransfer_core.service.answers import BenchmarkReport
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.limits import Limits
from lighttransfer_core.service.specs import CompareSpec, LoadSpec, PrefillSpec, RunSpec, prompt_hash
from lighttransfer_core.types import ConversionPlan
from lighttransfer_core.version import __version__
from tests.made_benchmark import made_benchmark
from tests.service.conftest import FakeSide, load
from tests.service.in_process import WAIT_S, InProcessTransport, serving


def raw(transport: InProcessTransport) -> httpx2.Client:
    return httpx2.Client(base_url="http://backend", transport=transport)


def test_a_run_from_start_to_result(client: BackendClient, prefill_spec: PrefillSpec, side: FakeSide) -> None:
    spec = CompareSpec(prefill=prefill_spec, lanes=(LaneSettings(ConversionPlan((1, 2))),), max_new_tokens=5)
    status = client.start(spec)
    events = list(client.events(status.token))
    assert [(event["cursor"], event["kind"]) for event in events] == [(1, "step"), (2, "done")]
    assert events[0]["text"] == "a prompt"
    assert client.wait(status.token) == {"model": "m-1"}
    assert side.started == [spec], "the spec arrives as it was sent"
    assert (client.status(status.token).state, client.status(status.token).events) == ("done", 2)


def test_forty_equal_requests_are_one_run(client: BackendClient, side: FakeSide) -> None:
    side.gate.clear()
    tokens = [client.start(load("m-3")).token for _ in range(40)]
    side.gate.set()
    assert all(client.wait(token) == {"model": "m-3"} for token in tokens)
    assert side.started == [load("m-3")]


def test_a_stream_is_taken_up_again_at_its_cursor(client: BackendClient, transport: InProcessTransport) -> None:
    token = client.start(load("m-5")).token
    client.wait(token)
    assert [event["cursor"] for event in client.events(token, after=3)] == [4, 5, 6]
    assert list(client.events(token, after=6)) == [], "a run that had ended at the cursor has nothing more to say"
    with raw(transport) as http:
        got = http.get(f"/runs/{token}/events?after=1", headers={"Last-Event-ID": "4"})
    assert "id: 5" in got.text
    assert "id: 4" not in got.text, "what a browser says it has seen counts more than the address"


def test_events_come_while_the_run_goes_on(client: BackendClient, side: FakeSide) -> None:
    def stop_after_two(_spec: RunSpec, step: int) -> None:
        if step == 1:
            side.gate.clear()

    side.stepping = stop_after_two
    token = client.start(load("m-4")).token
    stream = client.events(token)
    assert [next(stream)["step"], next(stream)["step"]] == [0, 1]
    side.gate.set()
    assert [event["kind"] for event in stream] == ["step", "step", "done"]


def test_a_silent_stream_has_a_heartbeat(
    client: BackendClient, transport: InProcessTransport, side: FakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "HEARTBEAT_S", 0.01)
    side.gate.clear()
    token = client.start(load("m-1")).token
    with raw(transport) as http, http.stream("GET", f"/runs/{token}/events") as stream:
        assert next(stream.iter_lines()).startswith(": ping")
    side.gate.set()
    client.wait(token)


def test_a_reader_that_goes_away_is_forgotten_and_the_run_goes_on(
    client: BackendClient, transport: InProcessTransport, side: FakeSide, service: BackendService
) -> None:
    side.stepping = lambda _spec, _step: side.gate.clear()
    token = client.start(load("m-2")).token
    with closing(client.events(token)) as stream:
        next(stream)
    assert transport.disconnected.is_set()
    side.gate.set()
    assert client.wait(token) == {"model": "m-2"}
    assert not service.find(token).run._readers


def test_cancel_ends_the_stream_and_closes_the_job(client: BackendClient, side: FakeSide) -> None:
    side.stepping = lambda _spec, _step: side.gate.clear()
    token = client.start(load("m-9")).token
    with closing(client.events(token)) as stream:
        next(stream)
        client.cancel(token)
        assert [event["kind"] for event in stream] == ["cancelled"]
    side.gate.set()
    again = client.start(load("m-9"))
    client.cancel(again.token)
    with pytest.raises(errors.RunFailedError, match="cancelled"):
        client.wait(token)
    assert client.status(token).state == "cancelled"


def test_one_who_cancels_does_not_cancel_for_the_others(client: BackendClient, side: FakeSide) -> None:
    side.gate.clear()
    one, other = client.start(load("m-2")).token, client.start(load("m-2")).token
    client.cancel(one)
    side.gate.set()
    assert client.wait(other) == {"model": "m-2"}
    assert client.status(one).state == "cancelled"


def test_a_failure_reaches_the_client_as_the_class_it_was(client: BackendClient, side: FakeSide) -> None:
    def fail(_spec: RunSpec, _step: int) -> None:
        raise errors.DoesNotFitError("too many bytes", offer="4,096 tokens")

    side.stepping = fail
    token = client.start(load("m-1")).token
    with pytest.raises(errors.DoesNotFitError, match="too many bytes") as failed:
        client.wait(token)
    assert failed.value.offer == "4,096 tokens"
    last = list(client.events(token))[-1]
    assert last["kind"] == "failed"
    assert last["error"] == {"type": "DoesNotFitError", "message": "too many bytes", "offer": "4,096 tokens"}
    side.stepping = lambda _spec, _step: None
    assert client.wait(client.start(load("m-1")).token) == {"model": "m-1"}, "the next run works"
    assert side.tidied == 1


class TestQueue:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(active_lanes=1, max_waiting=1)

    def test_the_line_is_bounded_and_places_are_reported(self, client: BackendClient, side: FakeSide) -> None:
        side.gate.clear()
        first = client.start(load("m-1")).token
        second = client.start(load("m-2")).token
        with pytest.raises(errors.QueueFullError, match="1 runs are waiting"):
            client.start(load("m-3"))
        assert client.status(second).place == 1
        assert client.status(second).state == "waiting"
        side.gate.set()
        client.wait(first)
        client.wait(second)


@pytest.mark.parametrize(
    ("ask", "expected", "message"),
    [
        (lambda c: c.status("x" * 32), errors.RunNotFoundError, "No run has this token"),
        (lambda c: list(c.events("x" * 32)), errors.RunNotFoundError, "No run has this token"),
        (lambda c: c.cancel("x" * 32), errors.RunNotFoundError, "No run has this token"),
        (lambda c: c.status("short"), errors.InvalidInputError, "at least 16"),
        (lambda c: c.spec("smollm2"), errors.ModelNotLoadedError, "start a load run"),
        (lambda c: c.get_prompt("0" * 64), errors.InvalidPromptError, "Send its text again"),
        (lambda c: c.start(PrefillSpec("m-1", "0" * 64)), errors.InvalidPromptError, "Send its text again"),
        (lambda c: c.start(PrefillSpec("m-1", "0" * 64, last=0)), errors.InvalidInputError, "last"),
        (lambda c: c.start(PrefillSpec("m-1", "0" * 64, query_rows=-1)), errors.InvalidInputError, "query_rows"),
        (lambda c: c.start(PrefillSpec("m-1", "no hash")), errors.InvalidInputError, "prompt"),
        (lambda c: c.start(LoadSpec("/etc/passwd")), errors.ModelNotFoundError, "LIGHTTRANSFER_MODEL_ROOT"),
        (lambda c: c.start(LoadSpec("../up")), errors.ModelNotFoundError, "LIGHTTRANSFER_MODEL_ROOT"),
        (lambda c: c.start(LoadSpec("x/..")), errors.ModelNotFoundError, "LIGHTTRANSFER_MODEL_ROOT"),
        (lambda c: c.start(LoadSpec("x" * 300)), errors.ModelNotFoundError, "hub id"),
        (lambda c: c.spec("x" * 300), errors.ModelNotFoundError, "hub id"),
        (lambda c: c.put_prompt(""), errors.InvalidInputError, "text"),
        (lambda c: c.tokenize("m-1", "0" * 64), errors.InvalidPromptError, "Send its text again"),
    ],
)
def test_what_is_wrong_comes_back_typed(
    client: BackendClient, ask: Callable[[BackendClient], Any], expected: type[Exception], message: str
) -> None:
    with pytest.raises(expected, match=message) as refused:
        ask(client)
    assert type(refused.value) is expected


def test_invalid_nested_data_keeps_its_own_error_class(transport: InProcessTransport) -> None:
    plan = {"lazy_layers": [1], "window": {"sink": -1, "recent": 5}}
    prefill = {"kind": "prefill", "model": "m", "prompt": "0" * 64}
    body = {"kind": "compare", "prefill": prefill, "lanes": [{"plan": plan}]}
    with raw(transport) as http:
        got = http.post("/runs", json=body)
    assert got.status_code == 422
    assert got.json()["error"]["type"] == "InvalidWindowError"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"kind": "other"}', b'{"kind": "load"}', b"null", b'{"model": "m"}'])
def test_garbage_is_refused_with_a_typed_error(transport: InProcessTransport, body: bytes) -> None:
    with raw(transport) as http:
        got = http.post("/runs", content=body, headers={"content-type": "application/json"})
    assert (got.status_code, got.json()["error"]["type"]) == (422, "InvalidInputError")


@pytest.mark.parametrize("place", [(), ("prefill",), ("prefill", "window"), ("lanes", 0, "plan")])
def test_a_misspelt_name_is_refused_and_named(transport: InProcessTransport, place: tuple[str | int, ...]) -> None:
    prefill = {"kind": "prefill", "model": "m", "prompt": "0" * 64, "window": {"sink": 4, "recent": 60}}
    body: Any = {"kind": "compare", "prefill": prefill, "lanes": [{"plan": {"lazy_layers": [1]}}]}
    inner = body
    for name in place:
        inner = inner[name]
    inner["max_newtokens"] = 2
    with raw(transport) as http:
        got = http.post("/runs", json=body)
    assert got.status_code == 422
    assert "max_newtokens" in got.json()["error"]["message"]


def test_unknown_routes_and_large_bodies_are_refused_with_a_typed_error(transport: InProcessTransport) -> None:
    with raw(transport) as http:
        missing = http.get("/nothing")
        large = http.post("/prompts", content=b"x", headers={"content-length": str(10**9)})
        unstated = http.post("/prompts", content=iter([b"x"]))
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "ServiceError")
    assert large.status_code == 413
    assert unstated.status_code == 411


def test_what_was_measured_on_the_backend_s_machine(
    client: BackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bench.json"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    assert client.benchmark() == BenchmarkReport(processor_name(), None)
    file.write_text(made_benchmark().to_json(), encoding="utf-8")
    assert client.benchmark() == BenchmarkReport(processor_name(), made_benchmark())
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(errors.InvalidInputError, match="holds no results"):
        client.benchmark()


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000, b"-1", b"1,1", b""])
def test_a_length_that_is_no_number_is_refused(transport: InProcessTransport, length: bytes) -> None:
    with raw(transport) as http:
        got = http.post("/prompts", content=b"x", headers={b"content-length": length})
    assert (got.status_code, got.json()["error"]["type"]) == (411, "InvalidInputError")


def test_the_small_routes(client: BackendClient, transport: InProcessTransport) -> None:
    assert client.health().version == __version__
    first = client.models()[0]
    assert (first.name, first.loaded) == ("smollm2", False)
    text = "ein Prompt, 提示, \U0001f600"
    assert client.get_prompt(client.put_prompt(text)) == text
    assert client.put_prompt(text) == prompt_hash(text)
    assert client.tokenize("m-1", client.put_prompt("abc")).input_ids == (97, 98, 99)
    assert client.memory().budget_bytes == 7
    assert client.laziness_metrics()[0].name == "lazy_ratio"
    client.wait(client.start(load("m-1")).token)
    with raw(transport) as http:
        metrics = http.get("/metrics").text
        schema = http.get("/openapi.json").json()
    assert 'lighttransfer_runs_ended_total{kind="load",state="done"} 1\n' in metrics
    assert "lighttransfer_budget_bytes 7\n" in metrics
    assert {"/runs", "/runs/{token}", "/runs/{token}/events", "/tokenize"} <= set(schema["paths"])
    assert json.dumps(schema["components"]["schemas"]["PrefillSpec"]).count("maximum") >= 2


def test_a_token_is_demanded_where_one_is_set(service: BackendService) -> None:
    with serving(create_app(service, token="s3cret")) as transport:
        for wrong in (None, "other", "s3cret2"):
            with BackendClient("http://backend", wrong, transport) as client:
                client.health()
                with pytest.raises(errors.ServiceError, match="demands a bearer token"):
                    client.models()
        with BackendClient("http://backend", "s3cret", transport) as client:
            assert client.models()


def test_a_model_under_the_model_root_is_let_through(
    client: BackendClient, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, side: FakeSide
) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_MODEL_ROOT", str(tmp_path))
    path = str(tmp_path / "model-1")
    client.wait(client.start(LoadSpec(path)).token)
    assert side.started == [LoadSpec(path)]
    with pytest.raises(errors.ModelNotFoundError):
        client.start(LoadSpec(str(tmp_path / ".." / "else")))


def test_a_home_folder_is_not_below_the_model_root(
    client: BackendClient, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    (home / "model-1").mkdir(parents=True)
    root.mkdir()
    (root / "link").symlink_to(home)
    monkeypatch.setenv("LIGHTTRANSFER_MODEL_ROOT", str(root))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(root)
    for name in ("~/model-1", "link/model-1"):
        with pytest.raises(errors.ModelNotFoundError, match="LIGHTTRANSFER_MODEL_ROOT"):
            client.start(LoadSpec(name))


def test_a_backend_that_is_not_there_is_reported_as_such() -> None:
    with BackendClient("http://127.0.0.1:1") as client, pytest.raises(errors.BackendUnavailableError, match="serve"):
        client.health()


def test_a_client_that_was_closed_meanwhile_says_that_the_backend_is_gone(
    client: BackendClient, side: FakeSide
) -> None:
    side.stepping = lambda _spec, _step: side.gate.clear()
    token = client.start(load("m-2")).token
    with closing(client.events(token)) as stream:
        next(stream)
        client.close()
        side.gate.set()
        with pytest.raises(errors.BackendUnavailableError):
            client.status(token)
    with pytest.raises(errors.BackendUnavailableError):
        next(client.events(token))


def comparison(prefill: PrefillSpec, lanes: int = 1, **facts: Any) -> CompareSpec:
    return CompareSpec(prefill, tuple(LaneSettings(ConversionPlan((lane,))) for lane in range(lanes)), **facts)


def test_commands_go_to_the_run_and_are_refused_typed(
    client: BackendClient, side: FakeSide, prefill_spec: PrefillSpec, transport: InProcessTransport
) -> None:
    side.gate.clear()
    token = client.start(comparison(prefill_spec)).token
    client.command(token, Command("speed", tokens_per_s=5.0))
    other = client.start(comparison(prefill_spec)).token
    with pytest.raises(errors.SharedRunError):
        client.command(token, Command("pause"))
    client.cancel(other)
    with raw(transport) as http:
        for body in ({"action": "explode"}, {"action": "speed", "tokens_per_s": 0}, {"action": "lane", "lane": 9}, []):
            assert http.post(f"/runs/{token}/commands", json=body).status_code == 422
    side.gate.set()
    client.wait(token)
    with pytest.raises(errors.InvalidInputError, match="is over"):
        client.command(token, Command("pause"))


class TestBusyClients:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(requests_per_minute=10, leave_grace_s=0.01, max_new_tokens=50)

    def test_one_client_asks_too_often_and_another_does_not_notice(self, client: BackendClient) -> None:
        for _ in range(2):
            client.start(load("m-1"), "busy")
        with pytest.raises(errors.RateLimitedError, match="try again in"):
            client.start(load("m-1"), "busy")
        assert client.wait(client.start(load("m-1"), "calm").token) == {"model": "m-1"}

    def test_a_closed_page_gives_its_run_up(self, client: BackendClient, side: FakeSide) -> None:
        side.gate.clear()
        token = client.start(load("m-9"), "gone").token
        for _ in range(20):
            client.leave(token)
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        # one that waits, and perhaps one that is giving up at this moment
        assert sum(not timer.finished.is_set() for timer in timers) <= 2, "not one for each"
        side.gate.set()
        assert wait_until(lambda: client_closed(side))

    def test_more_new_tokens_than_are_given_are_refused(self, client: BackendClient) -> None:
        prefill = PrefillSpec(model="m-1", prompt=client.put_prompt("x"))
        with pytest.raises(errors.InvalidInputError, match="--max-new-tokens"):
            client.start(comparison(prefill, max_new_tokens=51))


def client_closed(side: FakeSide) -> bool:
    return bool(side.closed)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it came to hold in time."""
    done = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return True
        done.wait(0.01)
    return False


def test_a_run_that_was_replaced_says_so_in_its_stream(client: BackendClient, side: FakeSide) -> None:
    side.gate.clear()
    prompt = client.put_prompt("a prompt")
    first = client.start(PrefillSpec("m-3", prompt), "visitor").token
    client.start(PrefillSpec("m-4", prompt), "visitor")
    last = list(client.events(first))[-1]
    assert (last["kind"], last["reason"]) == ("cancelled", "A newer run of the same visitor took its place.")
    side.gate.set()


def test_only_a_comparison_that_is_done_is_a_session(client: BackendClient, prefill_spec: PrefillSpec) -> None:
    token = client.start(prefill_spec).token
    client.wait(token)
    with pytest.raises(errors.InvalidInputError, match="a comparison that is done"):
        client.session(token)
