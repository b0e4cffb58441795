"""Batches: a prompt decoded B times is B single decodes, and made-up caches hold the formula's bytes."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attention_layers
from lighttransfer_core.batches import Batch, Filling, made_up, repeated
from lighttransfer_core.cache import HybridLayer
from lighttransfer_core.cost.formulas import kv_bytes_per_layer
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.prefill import as_loaded
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny, tokens

WINDOW = Window(2, 9)


def made(steps: Filling[Batch]) -> tuple[Batch, int]:
    """The batch, and how many turns it took."""
    turns = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, turns
        turns += 1


def plan_of(model: PreTrainedModel, *layers: int) -> ConversionPlan:
    kinds = attention_layers(model.config)
    return ConversionPlan(tuple(layer for layer in layers if kinds[layer].kind == "full"), WINDOW)


def storages(batch: Batch) -> dict[int, int]:
    """Bytes by address of every distinct storage behind the cache."""
    found = {}
    for layer in batch.cache.layers:
        assert isinstance(layer, HybridLayer)
        for segment in layer.segments:
            for buffer in segment.buffers:
                found[buffer.untyped_storage().data_ptr()] = buffer.untyped_storage().nbytes()
    return found


@pytest.mark.parametrize("lazy", [(), (0, 1, 3)])
def test_a_prompt_decoded_as_a_batch_is_as_many_single_decodes(tiny: PreTrainedModel, lazy: tuple[int, ...]) -> None:
    prefill, plan = lt.run_prefill(tiny, tokens(30)), plan_of(tiny, *lazy)
    batch, _turns = made(repeated(prefill, plan, 3))
    alone = [event.token_id for event in lt.decode(prefill, plan, 21)]
    for expected in alone[1:]:
        assert batch.step().token_ids.tolist() == [expected] * 3
    single = Branch(prefill, plan)
    for token in alone[:-1]:
        single.forward(torch.tensor([[token]]))
    for ours, theirs in zip(batch.cache.layers, single.cache.layers, strict=True):
        assert isinstance(ours, HybridLayer)
        assert isinstance(theirs, HybridLayer)
        for one, other in zip(ours.segments, theirs.segments, strict=True):
            torch.testing.assert_close(one.key, other.key.expand_as(one.key), atol=1e-4, rtol=0)
            torch.testing.assert_close(one.value, other.value.expand_as(one.value), atol=1e-4, rtol=0)


def test_a_batch_owns_as_many_copies_as_it_has_sequences(tiny: PreTrainedModel) -> None:
    prefill, plan = lt.run_prefill(tiny, tokens(30)), plan_of(tiny, 1)
    batch, turns = made(repeated(prefill, plan, 5))
    batch.step()
    assert turns == 4, "a layer a turn"
    assert batch.cache.layer_nbytes() == kv_bytes_per_layer(prefill.spec, plan, 31, batch=5)
    shared = {t.untyped_storage().data_ptr() for record in prefill.records for t in (record.key, record.value)}
    assert not shared & set(storages(batch)), "copies share nothing with the prefill"
    assert sum(storages(batch).values()) == sum(batch.cache.layer_allocated_nbytes())
    assert batch.cache.layer_own_nbytes() == batch.cache.layer_nbytes()


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_made_up_cache_holds_the_formula_s_bytes_to_the_last_step(
    architecture: str, length: int, dtype: torch.dtype
) -> None:
    lm = as_loaded(make_tiny(architecture, dtype))
    plan = plan_of(lm.model, 1, 3)
    batch, turns = made(made_up(lm, plan, length, 3))
    assert turns == 4
    for seen in range(length, length + 15):
        assert batch.cache.seen_tokens == seen
        assert batch.cache.layer_nbytes() == kv_bytes_per_layer(lm.spec, plan, seen, batch=3)
        assert sum(storages(batch).values()) == sum(batch.cache.layer_allocated_nbytes())
        step = batch.step()
        assert step.token_ids.shape == (3,)
        assert step.latency_s > 0


def test_made_up_values_are_finite_and_never_zero_pages() -> None:
    batch, _turns = made(made_up(as_loaded(make_tiny("llama")), None, 20, 2))
    for layer in batch.cache.layers:
        assert isinstance(layer, HybridLayer)
        for segment in layer.segments:
            for buffer in segment.buffers:
                assert torch.isfinite(buffer).all()
                assert (buffer != 0).float().mean() > 0.99


def test_what_cannot_be_made_is_refused() -> None:
    lm = as_loaded(make_tiny("gemma3"))
    with pytest.raises(InvalidInputError, match="batch=0"):
        next(made_up(lm, None, 5, 0))
    for length in (0, 513):
        with pytest.raises(InvalidPromptError, match="512 positions"):
            next(made_up(lm, None, length, 1))
    with pytest.raises(InvalidPlanError):
        next(made_up(lm, ConversionPlan((0,), WINDOW), 5, 1))
    with pytest.raises(InvalidPlanError):
        next(repeated(lt.run_prefill(lm, tokens(5)), ConversionPlan((0,), WINDOW), 2))


def test_a_batch_ends_at_the_last_position() -> None:
    batch, _turns = made(made_up(as_loaded(make_tiny("llama")), None, 511, 1))
    batch.step()
    with pytest.raises(InvalidPromptError, match="512 positions: ask for fewer"):
        batch.step()
