"""Every route of the schema, asked with values that fit it and with values that do not: nothing fails inside, and every
answer is one that the schema declares. The values are the same in every run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import lighttransfer_core as lt
from lighttransfer_core.frontier.spec import SweepHeader, SweepSpec
from lighttransfer_core.models.loading import LoadedModel
from lighttransfer_core.models.spec import describe
from lighttransfer_core.service.answers import LightScores, ScoreQuestion
from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.limits import Limits
from lighttransfer_core.service.maps import MapStore, PromptMap
from lighttransfer_core.service.scoring import answers
from lighttransfer_core.service.specs import LoadSpec, PrefillSpec, RunSpec
from lighttransfer_core.service.turns import JobFactory, Steps, Turns
from lighttransfer_core.types import Window
from tests.conftest import make_tiny
from tests.service.conftest import FakeSide
from tests.service.in_process import InProcessTransport, serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
RESULTS = "results.jsonl"
SWEEP = SweepSpec(tasks=("passkey",), lengths=(700,), windows=(Window(2, 20),))
ERROR_STATUSES = {"400", "401", "404", "409", "410", "411", "413", "422", "429"}


def declared() -> Any:
    """The schema, with how values are made from it: all boundary values, and a few at random from a fixed seed."""
    config = SchemathesisConfig(seed=7)
    config.projects.default.generation = GenerationConfig(max_examples=5, deterministic=True)
    config.projects.default.phases.coverage.unexpected_methods = set()
    return schemathesis.openapi.from_dict(create_app(BackendService(FakeSide)).openapi(), config=config)


class MapSide(FakeSide):
    """Its runs end at once, and all have the map and the scores of one small prefill."""

    def __init__(self, prefill: lt.Prefill) -> None:
        super().__init__()
        self.prefill, self.store = prefill, MapStore()

    def job(self, spec: RunSpec, texts: Sequence[str]) -> JobFactory:
        def build(_turns: Turns) -> Steps:
            yield {"kind": "step", "step": 0}
            return {"identity": "i", "kept": "k", "before": {"tokens": 300}}

        return build

    def prompt_map(
        self, load: LoadSpec, identity: str, lane: tuple[str, str] | None, check: Callable[[], None]
    ) -> PromptMap:
        return PromptMap(self.prefill, identity, self.store, check)

    def scores(
        self,
        load: LoadSpec,
        identity: str,
        before: int | None,
        questions: Sequence[ScoreQuestion],
        check: Callable[[], None],
    ) -> list[LightScores]:
        return answers(self.prefill, before, questions, check)


@pytest.fixture(scope="module")
def transport(byte_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessTransport]:
    folder = tmp_path_factory.mktemp("results")
    (folder / RESULTS).write_text(SweepHeader(SWEEP, describe(make_tiny("llama"))).to_json() + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTTRANSFER_RESULTS", str(folder))
        yield from in_process(byte_tokenizer)


def in_process(byte_tokenizer: Any) -> Iterator[InProcessTransport]:
    model = make_tiny("llama")
    lm = LoadedModel(model, byte_tokenizer, describe(model, "tiny", "r1", byte_tokenizer))
    ids = byte_tokenizer("the quick brown fox " * 16, return_tensors="pt").input_ids
    side = MapSide(lt.run_prefill(lm, ids))
    service = BackendService(lambda: side, Limits(requests_per_minute=1e9))
    with serving(create_app(service)) as made:
        yield made
    assert service.close()


@pytest.fixture(scope="module")
def http(transport: InProcessTransport) -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=transport) as speaking:
        yield speaking


@pytest.fixture(scope="module")
def known(transport: InProcessTransport) -> dict[str, Any]:
    """Values that exist, by the names under which requests carry them."""
    with BackendClient("http://backend", transport=transport) as client:
        prefill = PrefillSpec(model="m-1", prompt=client.put_prompt("a prompt"))
        token = client.start(prefill).token
        client.wait(token)
    places = {"stop": 20, "top": 0, "bottom": 9, "left": 0, "right": 9}
    return {"token": token, "prompt": prefill.prompt, "model": prefill.model, "view": "1.2", **places}


def put_in(known: dict[str, Any], place: Any) -> None:
    """Replace what the request names by what exists."""
    if isinstance(place, dict):
        for value in place.values():
            put_in(known, value)
        for name in known.keys() & place.keys():
            place[name] = known[name]


def prepared(case: Any) -> requests.PreparedRequest:
    return requests.Request(**case.as_transport_kwargs("http://backend")).prepare()


def is_every_other(request: requests.PreparedRequest) -> bool:
    """Chosen by what is asked, so that it is the same in every run."""
    body = request.body or b""
    return bool(zlib.crc32(str(request.url).encode() + (body.encode() if isinstance(body, str) else body)) % 2)


@declared().exclude(path_regex="/events$").parametrize()
@settings(
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck), deadline=None, database=None
)
def test_every_answer_is_one_that_the_schema_declares(case: Any, http: httpx2.Client, known: dict[str, Any]) -> None:
    made = prepared(case)
    if "/map" in case.path or is_every_other(made):  # without a run that exists a map route does little
        for place in (case.path_parameters, case.query, case.body):
            put_in(known, place)
        made = prepared(case)
    answer = http.request(str(made.method), str(made.url), content=made.body or b"", headers=dict(made.headers))
    case.validate_response(answer, checks=CHECKS)


def test_every_refusal_has_the_body_that_the_client_reads() -> None:
    declared_error = {"$ref": "#/components/schemas/ErrorEnvelope"}
    for path, methods in create_app(BackendService(FakeSide)).openapi()["paths"].items():
        for method, route in methods.items():
            refused = {status: answer for status, answer in route["responses"].items() if status[0] == "4"}
            assert {"401", "411", "413", "422"} <= refused.keys() <= ERROR_STATUSES, (method, path)
            assert all(
                answer["content"] == {"application/json": {"schema": declared_error}} for answer in refused.values()
            )


@pytest.mark.parametrize("after", ["-1", str(10**9 + 1), "9" * 400, "x", "1.5", "", "%00", "1&after=x"])
def test_a_cursor_that_is_none_is_refused(http: httpx2.Client, known: dict[str, Any], after: str) -> None:
    answer = http.get(f"http://backend/runs/{known['token']}/events?after={after}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "InvalidInputError")


@pytest.mark.parametrize("after", [2, 3, 10**9])
def test_a_cursor_past_the_end_of_a_run_that_is_over_ends_the_stream(
    http: httpx2.Client, known: dict[str, Any], after: int
) -> None:
    answer = http.get(f"http://backend/runs/{known['token']}/events?after={after}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("seen", [b"x", b"-1", b"\xb2", b"9" * 400, b"1;2", b"\xff\xfe", b"1.0", b""])
def test_a_last_event_id_that_is_none_of_ours_leaves_the_cursor_of_the_address(
    http: httpx2.Client, known: dict[str, Any], seen: bytes
) -> None:
    address = f"http://backend/runs/{known['token']}/events?after=1"
    answer = http.get(address, headers={b"last-event-id": seen})
    assert (answer.status_code, answer.text) == (200, http.get(address).text)
    assert answer.text.startswith("id: 2\r\n")


def test_results_are_sent_as_they_are_and_by_their_names_only(http: httpx2.Client) -> None:
    (listed,) = http.get("http://backend/sweeps").json()
    assert (listed["name"], listed["prompts"], listed["problem"]) == (RESULTS, 0, "")
    answer = http.get(f"http://backend/sweeps/{RESULTS}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    assert SweepHeader.from_json(answer.text).spec == SWEEP
    for name in ("..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "x.jsonl", RESULTS.upper(), f"./{RESULTS}%00"):
        refused = http.get(f"http://backend/sweeps/{name}")
        assert refused.status_code in (404, 422), name
        assert "error" in refused.json()


def test_events_of_no_run_are_refused(http: httpx2.Client) -> None:
    for token, status in (("x" * 32, 404), ("x", 422), ("x" * 65, 422), ("%00" * 32, 404)):
        assert http.get(f"http://backend/runs/{token}/events").status_code == status
