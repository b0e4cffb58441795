"""KV bytes by formula, against transformers' own caches and by hand."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from lighttransfer_core.cost.formulas import kv_bytes, kv_bytes_per_layer
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError
from lighttransfer_core.models import describe
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny, tokens


def test_the_unmodified_model_is_what_its_cache_holds(tiny: PreTrainedModel) -> None:
    spec = describe(tiny)
    with torch.no_grad():
        cache = tiny(tokens(30, batch=3), use_cache=True).past_key_values
    for layer, expected in zip(cache.layers, kv_bytes_per_layer(spec, None, 30, batch=3), strict=True):
        # transformers keeps one token fewer than the window: the next one takes its place.
        missing = layer.keys[:, :, :1].nbytes * 2 if layer.is_sliding else 0
        assert layer.keys.nbytes + layer.values.nbytes + missing == expected


@pytest.mark.parametrize(("num_tokens", "kept"), [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10), (10_000, 10)])
def test_a_streaming_layer_keeps_at_most_its_window(num_tokens: int, kept: int) -> None:
    spec = describe(make_tiny("llama"))
    plan = ConversionPlan(lazy_layers=(1, 3), window=Window(sink=4, recent=6))
    row = 2 * 2 * 8 * 4  # key and value, heads, entries, bytes
    full = num_tokens * row
    assert kv_bytes_per_layer(spec, plan, num_tokens) == (full, kept * row, full, kept * row)
    assert kv_bytes(spec, plan, num_tokens, batch=5) == 5 * 2 * (full + kept * row)


def test_a_layer_that_slides_by_itself_keeps_its_own_window() -> None:
    spec = describe(make_tiny("gemma3", torch.bfloat16))
    row = 2 * 2 * 16 * 2
    assert kv_bytes_per_layer(spec, None, 100) == (11 * row, 100 * row, 11 * row, 100 * row)
    plan = ConversionPlan(lazy_layers=(1,), window=Window(sink=0, recent=20))
    assert kv_bytes_per_layer(spec, plan, 100) == (11 * row, 20 * row, 11 * row, 100 * row)


def test_a_plan_without_lazy_layers_changes_nothing(tiny: PreTrainedModel) -> None:
    spec = describe(tiny)
    assert kv_bytes_per_layer(spec, ConversionPlan(), 77) == kv_bytes_per_layer(spec, None, 77)


def test_a_plan_for_another_shape_of_model_is_refused() -> None:
    spec = describe(make_tiny("gemma3"), "gemma")
    with pytest.raises(InvalidPlanError, match=r"gemma \(4 layers\): layer 0 slides by itself.*layer 9 does not exist"):
        kv_bytes(spec, ConversionPlan(lazy_layers=(0, 1, 9)), 10)


@pytest.mark.parametrize(("num_tokens", "batch"), [(-1, 1), (1, 0)])
def test_sizes_out_of_range_are_refused(num_tokens: int, batch: int) -> None:
    with pytest.raises(InvalidInputError, match="out of range"):
        kv_bytes(describe(make_tiny("llama")), None, num_tokens, batch)
