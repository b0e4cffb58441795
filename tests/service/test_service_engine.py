"""The real jobs on a tiny model, through the application."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core import errors
from lighttransfer_core.attention import use_lighttransfer_attention
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.lanes import Lanes
from lighttransfer_core.models import LoadedModel, describe, render_prompt
from lighttransfer_core.service import engine as engine_module
from lighttransfer_core.service import task as task_module
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.compare_job import lanes_nbytes
from lighttransfer_core.service.jobs import JobEngine
from lighttransfer_core.service.specs import CompareSpec, LoadSpec, PrefillSpec
from lighttransfer_core.types import ConversionPlan, LayerScores, ModelSpec, Window
from tests.conftest import make_tiny
from tests.service.conftest import speaking_to
from tests.service.in_process import WAIT_S

TEXT = "the quick brown fox jumps over the lazy dog; " * 6
WINDOW = Window(2, 20)
PLAN = ConversionPlan((1, 3), WINDOW)


class Loader:
    """Stands in for `load_model`; counts, and can be held up."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.loads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._tokenizer = tokenizer

    def __call__(
        self, name: str, device: str, dtype: str, revision: str | None, progress: Callable[[str, float], None]
    ) -> LoadedModel:
        self.loads.append(name)
        progress("Reading", 0.5)
        assert self.gate.wait(WAIT_S)
        model = make_tiny("llama")
        use_lighttransfer_attention(model)
        return LoadedModel(model, self._tokenizer, describe(model, name, "r1", self._tokenizer))


@pytest.fixture
def loader(byte_tokenizer: PreTrainedTokenizerFast) -> Loader:
    return Loader(byte_tokenizer)


@pytest.fixture
def spec(loader: Loader) -> ModelSpec:
    spec = loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None).spec
    loader.loads.clear()
    return spec


@pytest.fixture
def budget() -> int:
    return 10**9


@pytest.fixture
def engine(loader: Loader, budget: int, monkeypatch: pytest.MonkeyPatch) -> JobEngine:
    for name in ("_CHUNK_S", "_SHARED_CHUNK_S"):
        monkeypatch.setattr(task_module, name, 1e-9)  # the smallest chunks: many turns
    return JobEngine(device="cpu", budget_nbytes=budget, loader=loader)


@pytest.fixture
def client(engine: JobEngine) -> Iterator[BackendClient]:
    with speaking_to(engine) as speaking:
        yield speaking


@pytest.fixture
def prompt(client: BackendClient) -> str:
    return client.put_prompt(TEXT)


def prefill_spec(prompt: str, **facts: Any) -> PrefillSpec:
    return PrefillSpec(model="tiny", prompt=prompt, rendering="raw", **{"window": WINDOW, "last": 8, **facts})


def compare_spec(prompt: str, *plans: ConversionPlan, new_tokens: int = 10, **facts: Any) -> CompareSpec:
    lanes = tuple(LaneSettings(plan) for plan in plans or (PLAN,))
    return CompareSpec(prefill_spec(prompt), lanes, new_tokens, **facts)


def nothing_is_held(engine: JobEngine) -> bool:
    return not engine.ledger._leases and not engine.under_way and engine.ledger.prefills.pinned_nbytes == 0


def count_prefills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    real = task_module.prefill_steps

    def counting(lm: Any, input_ids: torch.Tensor, keep: Keep, chunk_s: float, earlier: lt.Prefill | None) -> Any:
        made.append(input_ids.shape[1])
        return real(lm, input_ids, keep, chunk_s=chunk_s, earlier=earlier)

    monkeypatch.setattr(task_module, "prefill_steps", counting)
    return made


def test_scores_are_the_librarys(client: BackendClient, prompt: str, loader: Loader, engine: JobEngine) -> None:
    token = client.start(prefill_spec(prompt)).token
    kinds = [event["kind"] for event in client.events(token)]
    assert kinds[:2] == ["loading", "loading"]
    assert kinds.count("prefill") >= 3
    assert kinds[-2:] == ["scoring", "done"]
    result = client.wait(token)
    lm = loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None)
    ids = render_prompt(lm.tokenizer, TEXT, "raw").input_ids
    expected = lt.score_layers(lt.run_prefill(lm, ids), WINDOW, 8)
    scores = LayerScores.from_dict(result["scores"])
    np.testing.assert_allclose(scores.values, expected.values, atol=1e-5)
    np.testing.assert_allclose(scores.per_head, expected.per_head, atol=1e-5)
    assert (result["num_tokens"], result["reused"], scores.window) == (ids.shape[1], False, WINDOW)
    assert result["prefill_nbytes"] == prefill_nbytes(lm.spec, ids.shape[1], Keep())
    assert sum(result["kv_bytes_per_layer"]) == 4 * ids.shape[1] * lm.spec.kv_bytes_per_token_per_layer
    assert nothing_is_held(engine)
    memory = client.memory()
    assert (memory.results_bytes, memory.weights_bytes) == (result["prefill_nbytes"], lm.spec.weight_bytes)


def test_what_a_prompt_begins_with_is_taken_over_from_a_kept_one(
    client: BackendClient, prompt: str, loader: Loader, engine: JobEngine
) -> None:
    first = client.wait(client.start(prefill_spec(prompt)).token)
    assert first["taken_over"] == 0
    longer = TEXT + " And then something else was asked."
    token = client.start(prefill_spec(client.put_prompt(longer))).token
    done = [event["tokens_done"] for event in client.events(token) if event["kind"] == "prefill"]
    result = client.wait(token)
    assert result["reused"] is False
    assert result["taken_over"] == first["num_tokens"]
    assert done[1] > first["num_tokens"]
    lm = loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None)
    expected = lt.score_layers(lt.run_prefill(lm, render_prompt(lm.tokenizer, longer, "raw").input_ids), WINDOW, 8)
    np.testing.assert_allclose(LayerScores.from_dict(result["scores"]).values, expected.values, atol=1e-5)
    assert nothing_is_held(engine)
    assert client.memory().results_bytes == first["prefill_nbytes"] + result["prefill_nbytes"]


def test_a_few_common_tokens_are_not_worth_a_copy(client: BackendClient, prompt: str) -> None:
    client.wait(client.start(prefill_spec(prompt)).token)
    other = client.put_prompt(TEXT[:40] + "x" * 200)
    assert client.wait(client.start(prefill_spec(other)).token)["taken_over"] == 0


def test_another_window_reuses_the_prefill_and_the_same_spec_the_run(
    client: BackendClient, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_prefills(monkeypatch)
    first = client.wait(client.start(prefill_spec(prompt)).token)
    second = client.wait(client.start(prefill_spec(prompt, window=Window(1, 9))).token)
    assert client.wait(client.start(prefill_spec(prompt)).token) == first
    assert (len(made), second["reused"], second["identity"]) == (1, True, first["identity"])
    other_rows = client.wait(client.start(prefill_spec(prompt, query_rows=16)).token)
    assert (len(made), other_rows["reused"]) == (2, False)
    assert other_rows["identity"] != first["identity"]


def test_runs_that_need_the_same_model_and_prompt_load_and_prefill_once(
    client: BackendClient, prompt: str, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_prefills(monkeypatch)
    loader.gate.clear()
    tokens = [client.start(prefill_spec(prompt, window=Window(1, recent))).token for recent in range(5, 11)]
    tokens.append(client.start(LoadSpec("tiny")).token)
    tokens.append(client.start(compare_spec(prompt, new_tokens=4)).token)
    with closing(client.events(tokens[-1])) as stream:
        assert next(stream)["message"] == "Reading", "every run that waits for the model sees how far it is"
    loader.gate.set()
    results = [client.wait(token) for token in tokens]
    assert loader.loads == ["tiny"]
    assert len(made) == 1
    assert results[-2]["spec"]["num_layers"] == 4


def test_a_comparison_is_the_librarys_and_its_bytes_are_the_formulas(
    client: BackendClient, prompt: str, loader: Loader
) -> None:
    token = client.start(compare_spec(prompt, new_tokens=12)).token
    events = list(client.events(token))
    begin, steps = (next(event for event in events if event["kind"] == "begin"), steps_of(events))
    result = client.wait(token)
    lm = loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None)
    ids = render_prompt(lm.tokenizer, TEXT, "raw").input_ids
    assert begin["input_ids"] == ids[0].tolist()
    expected = lt.compare(lt.run_prefill(lm, ids), None, PLAN, 12)
    a, b = (result["lanes"][name]["answers"][0] for name in "ab")
    assert (a["tokens"], b["tokens"]) == (list(expected.tokens_a), list(expected.tokens_b))
    assert (b["first_divergence"], b["agreement"]) == (expected.first_divergence, expected.agreement)
    np.testing.assert_allclose(b["kl"], expected.kl, atol=1e-4)
    assert [step["step"] for step in steps] == list(range(12))
    for step in steps:
        for name, lane in step["lanes"].items():
            seen, of_lane = len(ids[0]) + step["step"], begin["lanes"][name]
            formula = [of_lane["row_nbytes"] * min(seen, cap or seen) for cap in of_lane["caps"]]
            assert lane["kv_bytes"] == formula
            assert lane["seen_tokens"] == seen
            assert lane["top"][0][0] == lane["token_id"]
        assert step["waited_s"] >= 0
    for name in "ab":
        assert result["lanes"][name]["kv_bytes"] == result["lanes"][name]["kv_formula"]
        assert result["lanes"][name]["answers"][0]["text"] == "".join(step["lanes"][name]["text"] for step in steps)
    assert steps[0]["memory"]["process"] > 0


def steps_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == "step"]


def test_two_comparisons_at_once_do_not_disturb_each_other(client: BackendClient, prompt: str) -> None:
    plans = [ConversionPlan((layer,), WINDOW) for layer in range(4)]
    together = [client.start(compare_spec(prompt, plan)).token for plan in plans]
    results = [client.wait(token)["lanes"]["b"]["answers"] for token in together]
    for plan, result in zip(plans, results, strict=True):
        alone = client.wait(client.start(compare_spec(prompt, plan, copy="again")).token)["lanes"]["b"]["answers"]
        assert result[0]["tokens"] == alone[0]["tokens"]
        np.testing.assert_allclose(result[0]["kl"], alone[0]["kl"], atol=1e-9)


def hold_up_prefills(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Prefills stop after their first chunk until the event is set."""
    gate = threading.Event()
    real = task_module.prefill_steps

    def held_up(*args: Any, **options: Any) -> Any:
        steps = real(*args, **options)
        yield next(steps)
        assert gate.wait(WAIT_S)
        return (yield from steps)

    monkeypatch.setattr(task_module, "prefill_steps", held_up)
    return gate


def cancel_after_first_chunk(client: BackendClient, token: str) -> None:
    with closing(client.events(token)) as stream:
        next(event for event in stream if event.get("tokens_done"))
        client.cancel(token)


def test_a_cancelled_prefill_gives_everything_back_and_the_next_run_works(
    client: BackendClient, prompt: str, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold_up_prefills(monkeypatch)
    token = client.start(prefill_spec(prompt)).token
    cancel_after_first_chunk(client, token)
    assert client.status(token).state == "cancelled"
    gate.set()
    assert client.wait(client.start(prefill_spec(prompt)).token)["reused"] is False
    assert nothing_is_held(engine)


def test_when_the_run_that_makes_a_shared_prefill_is_cancelled_the_follower_makes_it(
    client: BackendClient, prompt: str, loader: Loader, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold_up_prefills(monkeypatch)
    loader.gate.clear()
    leader = client.start(prefill_spec(prompt, last=3)).token
    follower = client.start(prefill_spec(prompt, last=4)).token
    loader.gate.set()
    cancel_after_first_chunk(client, leader)
    gate.set()
    assert client.wait(follower)["reused"] is False
    assert nothing_is_held(engine)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: prefill_spec(s, metric="nothing"), errors.UnknownMetricError),
        (lambda s: prefill_spec(s, query_rows=2), errors.PrefillMismatchError),
        (lambda s: prefill_spec(s, system="x"), errors.InvalidPromptError),
        (lambda s: compare_spec(s, ConversionPlan((9,))), errors.InvalidPlanError),
        (lambda s: compare_spec(s, new_tokens=500), errors.InvalidPromptError),
    ],
)
def test_a_wrong_request_fails_typed_and_leaves_nothing_behind(
    client: BackendClient, prompt: str, engine: JobEngine, change: Callable[[str], Any], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        client.wait(client.start(change(prompt)).token)
    assert nothing_is_held(engine)
    assert client.wait(client.start(prefill_spec(prompt)).token)["num_tokens"] > 0


class TestSmallBudget:
    @pytest.fixture
    def budget(self, spec: ModelSpec) -> int:
        return spec.weight_bytes + prefill_nbytes(spec, len(TEXT), Keep()) * 2 // 3

    def test_a_refusal_offers_what_fits(self, client: BackendClient, prompt: str, engine: JobEngine) -> None:
        with pytest.raises(errors.DoesNotFitError, match="would hold") as refused:
            client.wait(client.start(prefill_spec(prompt)).token)
        assert refused.value.offer is not None
        rows = int(refused.value.offer.rpartition("query_rows=")[2].rstrip(")"))
        assert client.wait(client.start(prefill_spec(prompt, query_rows=rows)).token)["reused"] is False
        with pytest.raises(errors.DoesNotFitError):
            client.wait(client.start(prefill_spec(prompt, query_rows=rows + 1)).token)
        assert nothing_is_held(engine)

    def test_the_largest_prompt_that_fits_is_told_before_the_run(self, client: BackendClient, prompt: str) -> None:
        client.wait(client.start(LoadSpec("tiny")).token)
        told = client.tokenize("tiny", prompt, "raw")
        assert told.num_tokens == len(TEXT)
        assert 0 < told.max_tokens < told.num_tokens
        fitting = client.put_prompt(TEXT[: told.max_tokens])
        assert client.wait(client.start(prefill_spec(fitting)).token)["num_tokens"] == told.max_tokens
        longer = client.put_prompt(TEXT[: told.max_tokens + 1])
        with pytest.raises(errors.DoesNotFitError):
            client.wait(client.start(prefill_spec(longer)).token)


class TestRoomForOneModel:
    @pytest.fixture
    def budget(self, spec: ModelSpec) -> int:
        return int(spec.weight_bytes * 1.5)

    def test_an_idle_model_leaves_and_comes_back(self, client: BackendClient, loader: Loader) -> None:
        for name in ("tiny", "other", "tiny"):
            client.wait(client.start(LoadSpec(name, dtype="auto" if name == "other" else "float32")).token)
            assert client.spec(name).name == name
        assert [entry.name for entry in client.models() if entry.loaded] == ["tiny"]
        with pytest.raises(errors.ModelNotLoadedError):
            client.spec("other")
        assert client.memory().weights_bytes <= client.memory().budget_bytes


def test_a_model_that_does_not_fit_is_tried_again_once_idle_ones_have_left(
    engine: JobEngine, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.model(LoadSpec("idle"), lambda _message, _fraction: None):
        pass
    attempts: list[str] = []

    def crowded(name: str, *rest: Any) -> LoadedModel:
        attempts.append(name)
        if len(engine.ledger.models):
            raise errors.ModelDoesNotFitError("too large")
        return loader(name, *rest)

    monkeypatch.setattr(engine, "_loader", crowded)
    with engine.model(LoadSpec("large"), lambda _message, _fraction: None) as lm:
        assert lm.spec.name == "large"
        with pytest.raises(errors.ModelDoesNotFitError), engine.model(LoadSpec("third"), lambda _m, _f: None):
            pass
    assert attempts == ["large", "large", "third"]


def test_running_out_of_memory_is_a_typed_error_and_the_next_run_works(
    client: BackendClient, prompt: str, engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(task_module, "prefill_steps", full)
        with pytest.raises(errors.DoesNotFitError, match="ran out of memory") as refused:
            client.wait(client.start(prefill_spec(prompt)).token)
    assert refused.value.offer is not None
    assert nothing_is_held(engine)
    assert client.wait(client.start(prefill_spec(prompt)).token)["num_tokens"] == len(TEXT)


@pytest.mark.parametrize("plan", [ConversionPlan(), PLAN, ConversionPlan((0, 1, 2, 3), Window(4, 400))])
def test_lanes_hold_no_more_than_was_reserved_for_them(loader: Loader, plan: ConversionPlan) -> None:
    lm = loader("tiny", "cpu", "auto", None, lambda _message, _fraction: None)
    prefill = lt.run_prefill(lm, render_prompt(lm.tokenizer, TEXT, "raw").input_ids)
    settings = [LaneSettings(), LaneSettings(plan), LaneSettings(PLAN)]
    lanes = Lanes(prefill, settings, 30, record=True, restartable=True)
    while not lanes.done:
        lanes.advance()
    assert 0 < lanes.nbytes <= lanes_nbytes(lm.spec, settings, prefill.num_tokens, 30)


def test_the_largest_that_fits_is_found() -> None:
    assert engine_module.largest(10, lambda n: n <= 7) == 7
    assert engine_module.largest(10, lambda n: n <= 0) == 0
    assert engine_module.largest(10, lambda _n: True) == 10
