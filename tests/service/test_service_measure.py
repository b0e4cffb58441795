"""The measuring runs on a tiny model, through the application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lighttransfer_core import errors, speed
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import MeasuredThroughput, Measurement
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.specs import MeasureSpec, PrefillSpec, RunSpec, ThroughputSpec
from lighttransfer_core.throughput import final_tokens, throughput_nbytes
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window
from tests.service.conftest import speaking_to
from tests.service.test_service_engine import TEXT, Loader, nothing_is_held, prefill_spec

PLAN = ConversionPlan((1, 3), Window(2, 20))
STEPS = 4


@pytest.fixture
def loader(byte_tokenizer: PreTrainedTokenizerFast) -> Loader:
    return Loader(byte_tokenizer)


@pytest.fixture
def spec(loader: Loader) -> ModelSpec:
    return loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None).spec


@pytest.fixture
def budget() -> int:
    return 10**9


@pytest.fixture
def engine(loader: Loader, budget: int, monkeypatch: pytest.MonkeyPatch) -> JobEngine:
    monkeypatch.setattr(speed, "read_nbytes", lambda _device: 2**12)
    return JobEngine(device="cpu", budget_nbytes=budget, loader=loader)


@pytest.fixture
def client(engine: JobEngine) -> Iterator[BackendClient]:
    with speaking_to(engine) as speaking:
        yield speaking


@pytest.fixture
def prompt(client: BackendClient) -> str:
    return client.put_prompt(TEXT)


def measure_spec(**facts: Any) -> MeasureSpec:
    return MeasureSpec(**{"model": "tiny", "plan": PLAN, "contexts": (20, 200), "batches": (1, 2), **facts})


def throughput_spec(spec: ModelSpec, prompt: str, full: int = 2, **facts: Any) -> ThroughputSpec:
    """With room for `full` sequences of the full model."""
    room = kv_bytes(spec, None, final_tokens(spec, len(TEXT), STEPS), full)
    return ThroughputSpec(**{"prefill": prefill_spec(prompt), "plan": PLAN, "kv_nbytes": room, "steps": STEPS, **facts})


@pytest.mark.parametrize(
    "spec",
    [measure_spec(), ThroughputSpec(PrefillSpec("m", "a" * 64), PLAN, 10)],
)
def test_specs_survive_json(spec: RunSpec) -> None:
    assert type(spec).from_json(spec.to_json()) == spec
    assert spec.load_spec().model == spec.model


def test_a_measurement_goes_on_in_turns_and_its_bytes_are_the_formula_s(
    client: BackendClient, engine: JobEngine
) -> None:
    token = client.start(measure_spec()).token
    events = [event for event in client.events(token) if event["kind"] == "measuring"]
    found = Measurement.from_dict(client.wait(token))
    assert len(events) > 8 * 12
    assert "200 tokens, batch 2" in events[-1]["message"]
    assert 0 <= events[0]["fraction"] < events[-1]["fraction"] < 1
    assert {(point.tokens, point.batch, point.with_plan) for point in found.points} == {
        (tokens, batch, side) for tokens in (20, 200) for batch in (1, 2) for side in (False, True)
    }
    for point in found.points:
        assert point.kv_bytes == kv_bytes(found.spec, PLAN if point.with_plan else None, point.tokens, point.batch)
    assert found.speed.device == "cpu"
    assert nothing_is_held(engine)


def test_what_was_measured_is_measured_anew_when_asked_again(client: BackendClient) -> None:
    spec = measure_spec(contexts=(20,), batches=(1,))
    first, second = (client.wait(client.start(spec).token) for _ in range(2))
    assert first["points"][0]["latency"] != second["points"][0]["latency"]


def test_throughput_decodes_the_kept_prompt_at_both_largest_batches(
    client: BackendClient, engine: JobEngine, spec: ModelSpec, prompt: str
) -> None:
    client.wait(client.start(prefill_spec(prompt)).token)
    asked = throughput_spec(spec, prompt)
    token = client.start(asked).token
    kinds = [event["kind"] for event in client.events(token)]
    found = MeasuredThroughput.from_dict(client.wait(token))
    assert "prefill" not in kinds, "the kept prefill is used"
    assert (found.full.batch, found.lazy.batch > 2) == (2, True)
    for side in (found.full, found.lazy):
        assert side.kv_bytes == side.kv_formula_bytes <= asked.kv_nbytes
    assert found.prompt_tokens == len(TEXT)
    assert nothing_is_held(engine)


@pytest.mark.parametrize("kind", ["measure", "throughput"])
def test_a_cancelled_run_gives_everything_back(
    client: BackendClient, engine: JobEngine, spec: ModelSpec, prompt: str, kind: str
) -> None:
    asked = measure_spec() if kind == "measure" else throughput_spec(spec, prompt, steps=200)
    token = client.start(asked).token
    with closing(client.events(token)) as stream:
        next(event for event in stream if event["kind"] == "measuring")
        client.cancel(token)
    assert client.wait(client.start(prefill_spec(prompt, last=5)).token)["num_tokens"] == len(TEXT)
    assert nothing_is_held(engine)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda spec, prompt: measure_spec(contexts=(20, 600)), errors.InvalidPromptError),
        (lambda spec, prompt: measure_spec(contexts=(0,)), errors.InvalidInputError),
        (lambda spec, prompt: measure_spec(contexts=()), errors.InvalidInputError),
        (lambda spec, prompt: measure_spec(batches=(0,)), errors.InvalidInputError),
        (lambda spec, prompt: measure_spec(plan=ConversionPlan((9,))), errors.InvalidPlanError),
        (lambda spec, prompt: throughput_spec(spec, prompt, plan=ConversionPlan((9,))), errors.InvalidPlanError),
        (lambda spec, prompt: throughput_spec(spec, prompt, steps=300), errors.InvalidPromptError),
        (lambda spec, prompt: throughput_spec(spec, prompt, kv_nbytes=0), errors.InvalidInputError),
    ],
)
def test_a_wrong_request_fails_typed_and_leaves_nothing_behind(
    client: BackendClient,
    engine: JobEngine,
    spec: ModelSpec,
    prompt: str,
    change: Callable[[ModelSpec, str], Any],
    expected: type[Exception],
) -> None:
    with pytest.raises(expected):
        client.wait(client.start(change(spec, prompt)).token)
    assert nothing_is_held(engine)


def test_a_memory_that_holds_no_sequence_is_refused_with_one_that_does(
    client: BackendClient, spec: ModelSpec, prompt: str
) -> None:
    with pytest.raises(errors.DoesNotFitError, match="One sequence") as refused:
        client.wait(client.start(throughput_spec(spec, prompt, kv_nbytes=1000)).token)
    assert refused.value.offer is not None
    mib = int(refused.value.offer.split()[-2].replace(",", ""))
    assert client.wait(client.start(throughput_spec(spec, prompt, kv_nbytes=mib * 2**20)).token)["full"]["batch"] >= 1


class TestSmallBudget:
    @pytest.fixture
    def budget(self, spec: ModelSpec) -> int:
        return spec.weight_bytes + prefill_nbytes(spec, len(TEXT), Keep()) + throughput_nbytes(2 * 2**20)

    def test_a_refused_measurement_offers_the_contexts_that_fit(self, client: BackendClient, engine: JobEngine) -> None:
        asked = measure_spec(contexts=(20, 400), batches=(64,))
        with pytest.raises(errors.DoesNotFitError) as refused:
            client.wait(client.start(asked).token)
        assert refused.value.offer is not None
        tokens = int(refused.value.offer.split(" tokens")[0].split()[-1])
        assert 20 < tokens < 400
        with pytest.raises(errors.DoesNotFitError):
            client.wait(client.start(measure_spec(contexts=(tokens + 1,), batches=(64,))).token)
        client.wait(client.start(measure_spec(contexts=(tokens,), batches=(64,))).token)
        assert nothing_is_held(engine)

    def test_a_refused_memory_is_answered_with_the_most_that_fits(
        self, client: BackendClient, engine: JobEngine, spec: ModelSpec, prompt: str
    ) -> None:
        with pytest.raises(errors.DoesNotFitError) as refused:
            client.wait(client.start(throughput_spec(spec, prompt, kv_nbytes=2**30)).token)
        assert refused.value.offer == "a KV memory of 2 MiB"
        client.wait(client.start(throughput_spec(spec, prompt, kv_nbytes=2 * 2**20)).token)
        assert nothing_is_held(engine)
