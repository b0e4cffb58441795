"""Echo: a second reading of passages of the prompt."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core.errors import PrefillMismatchError, ShortPromptWarning
from lighttransfer_core.keep import Keep
from lighttransfer_core.laziness.echo import PASSAGE_TOKENS, PASSAGES, echo_passages
from lighttransfer_core.laziness.metric import layer_views
from lighttransfer_core.laziness.reach_effect import FLOOR, witnesses
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import as_loaded
from tests.conftest import make_tiny, tokens

WINDOW = lt.Window(3, 24)
ROOM = 300
SIZES = [(300, 4, 252), (60, 0, 1), (30, 4, 24), (30, 4, 25), (2000, 4, 8)]
"""Tokens, sinks, recent."""


def read_twice(ids: torch.Tensor, window: lt.Window) -> tuple[torch.Tensor, int]:
    """A prompt with its passages behind it, and how many tokens those have."""
    passages = echo_passages(ids[0], window, ROOM)
    echo = torch.cat([ids[:, start:stop] for start, stop in passages], dim=1)
    return torch.cat([ids, echo], dim=1), echo.shape[1]


def test_it_weighs_the_last_queries_and_the_tokens_read_again(tiny: PreTrainedModel) -> None:
    """Held against the passages as part of the prompt: a tenth of 20 queries is two, of the 12 that are read one."""
    ids = tokens(120)
    scores = lt.score_layers(lt.run_prefill(tiny, ids, chunk_tokens=50), WINDOW, last=20, metric="echo")
    longer, read = read_twice(ids, WINDOW)
    assert read == 12
    runs = [(lt.run_prefill(tiny, ids), 20), (lt.run_prefill(tiny, longer), read)]
    seen = [[witnesses(view, WINDOW, last, "") for view in layer_views(prefill)] for prefill, last in runs]
    for layer, (own, again) in enumerate(zip(*seen, strict=True)):
        mass = min(float(own.mass.min()), float(again.mass.min()))
        change = max(float(own.change.sort().values[-2:].mean()), float(again.change.max()))
        assert scores.values[layer] == pytest.approx((mass + FLOOR) / (mass + FLOOR + change), abs=1e-5)
        mass = torch.minimum(own.mass.amin(dim=1), again.mass.amin(dim=1))
        change = torch.maximum(own.head_change.sort(dim=1).values[:, -2:].mean(dim=1), again.head_change.amax(dim=1))
        np.testing.assert_allclose(scores.per_head[layer], (mass + FLOOR) / (mass + FLOOR + change), atol=1e-5)
    of_prompt = lt.score_layers(runs[0][0], WINDOW, last=20, metric="reach_effect").per_query
    np.testing.assert_allclose(scores.per_query, of_prompt, atol=1e-5)
    assert scores.num_tokens == 120


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_the_same_in_half_precision(dtype: torch.dtype) -> None:
    ids = tokens(120)
    exact = lt.score_layers(lt.run_prefill(make_tiny("llama"), ids), WINDOW, metric="echo")
    rough = lt.score_layers(lt.run_prefill(make_tiny("llama", dtype), ids), WINDOW, metric="echo")
    np.testing.assert_allclose(rough.values, exact.values, atol=0.05)


def test_it_asks_for_the_last_queries_only_and_leaves_the_prefill_alone(llama: PreTrainedModel) -> None:
    ids = tokens(120)
    whole, few = lt.run_prefill(llama, ids), lt.run_prefill(llama, ids, keep=Keep(query_rows=9))
    before = [record.key.clone() for record in whole.records]
    scores = lt.score_layers(whole, WINDOW, last=9, metric="echo")
    np.testing.assert_array_equal(scores.values, lt.score_layers(few, WINDOW, last=9, metric="echo").values)
    for record, key in zip(whole.records, before, strict=True):
        assert torch.equal(record.key, key)
    assert whole.nbytes == lt.run_prefill(llama, ids).nbytes


@pytest.mark.parametrize("metric", ["echo", "recall"])
def test_a_prefill_that_was_scored_is_given_back_at_once(
    llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, metric: str
) -> None:
    """Without a collection of garbage, since its bytes are what others wait for."""
    lm = LoadedModel(llama, byte_tokenizer, as_loaded(llama).spec)
    prefill = lt.run_prefill(lm, tokens(120))
    key = weakref.ref(prefill.records[0].key)
    gc.collect()
    gc.disable()
    try:
        lt.score_layers(prefill, WINDOW, metric=metric)
        del prefill
        assert key() is None
    finally:
        gc.enable()


def test_a_beginning_is_read_again_as_though_the_prompt_ended_there(llama: PreTrainedModel) -> None:
    ids = tokens(160)
    scores = lt.score_layers(lt.run_prefill(llama, ids), WINDOW, metric="echo", tokens=120)
    alone = lt.score_layers(lt.run_prefill(llama, ids[:, :120]), WINDOW, metric="echo")
    np.testing.assert_allclose(scores.values, alone.values, atol=1e-5)


def test_the_passages_of_least_repetition_are_read() -> None:
    ids = torch.arange(7).repeat(120)
    ids[500:506] = torch.tensor([50, 51, 52, 53, 54, 55])
    ids[300:302] = torch.tensor([60, 61])
    ids[800:810] = torch.arange(70, 80)  # inside the window
    (other, end), (first, stop) = echo_passages(ids, lt.Window(4, 252), ROOM)
    assert stop - first == end - other == PASSAGE_TOKENS
    assert first <= 500 - 2  # every run of three tokens that reaches into what stands nowhere else
    assert stop >= 506 + 2
    assert other <= 300 - 2
    assert end >= 302 + 2


def test_among_equals_the_earliest_are_read() -> None:
    assert echo_passages(torch.arange(1000), lt.Window(4, 200), ROOM) == [(4, 36), (36, 68)]


@pytest.mark.parametrize(("length", "sink", "recent"), SIZES)
def test_passages_lie_outside_the_window_and_are_short_beside_it(length: int, sink: int, recent: int) -> None:
    passages = echo_passages(torch.arange(length), lt.Window(sink, recent), ROOM)
    assert len(passages) == min(PASSAGES, length - sink - recent)
    for start, stop in passages:
        assert sink <= start < stop <= length - recent
    assert len(passages) < 2 or passages[0][1] <= passages[1][0]
    assert sum(stop - start for start, stop in passages) <= max(recent // 2, len(passages))


def test_where_the_window_holds_everything_no_layer_would_lose_anything(llama: PreTrainedModel) -> None:
    with pytest.warns(ShortPromptWarning):
        scores = lt.score_layers(lt.run_prefill(llama, tokens(27)), WINDOW, metric="echo")
    np.testing.assert_allclose(scores.values, 1.0, atol=1e-5)
    assert not scores.informative


@pytest.mark.parametrize(("left", "read"), [(0, 0), (1, 1), (3, 2), (500, 12)])
def test_no_more_is_read_again_than_there_are_positions(llama: PreTrainedModel, left: int, read: int) -> None:
    ids = tokens(llama.config.max_position_embeddings - left)
    prefill = lt.run_prefill(llama, ids if left < 500 else tokens(120))
    passages = echo_passages(prefill.input_ids[0], WINDOW, prefill.spec.max_positions - prefill.num_tokens)
    assert sum(stop - start for start, stop in passages) == read
    scores = lt.score_layers(prefill, WINDOW, last=6, metric="echo")
    assert np.isfinite(scores.values).all()


def test_whoever_scores_waits_for_the_model_s_other_passes(llama: PreTrainedModel) -> None:
    """Two threads score and one decodes, all on one model: their forward passes come one after the other."""
    lm = as_loaded(llama)
    prefill, ids = lt.run_prefill(lm, tokens(120)), tokens(90, seed=3)
    alone = lt.score_layers(prefill, WINDOW, metric="echo").values, lt.run_prefill(lm, ids).logits
    under_way, most, counting = 0, 0, threading.Lock()

    def began(*_: object) -> None:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)

    def ended(*_: object) -> None:
        nonlocal under_way
        with counting:
            under_way -= 1

    hooks = [llama.register_forward_pre_hook(began), llama.register_forward_hook(ended)]
    with ThreadPoolExecutor(3) as pool:
        scored = [pool.submit(lt.score_layers, prefill, WINDOW, metric="echo") for _ in range(6)]
        read = [pool.submit(lt.run_prefill, lm, ids, chunk_tokens=10) for _ in range(3)]
        for one in scored:
            np.testing.assert_allclose(one.result().values, alone[0], atol=1e-6)
        for other in read:
            torch.testing.assert_close(other.result().logits, alone[1], atol=1e-4, rtol=1e-4)
    for hook in hooks:
        hook.remove()
    assert most == 1


def test_a_model_whose_stream_cannot_be_seen_is_told_so(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill = lt.run_prefill(as_loaded(llama), tokens(120))
    monkeypatch.setattr("lighttransfer_core.cache.hybrid.HybridCache.see_residual", lambda *_: None)
    with pytest.raises(PrefillMismatchError, match="residual stream"):
        lt.score_layers(prefill, WINDOW, metric="echo")
