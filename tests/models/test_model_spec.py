"""ModelSpec: the facts of every family, and the shapes of model that are refused by name."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    FalconH1Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma4TextConfig,
    GPT2Config,
    Llama4TextConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3NextConfig,
    T5Config,
)

from lighttransfer_core.errors import UnsupportedModelError
from lighttransfer_core.models import describe
from lighttransfer_core.models.spec import check_config
from lighttransfer_core.types import ModelSpec
from tests.conftest import SHARED, make_tiny


def test_the_facts_are_those_of_the_tensors(architecture: str, tiny: PreTrainedModel, ids: torch.Tensor) -> None:
    spec = describe(tiny, architecture)
    with torch.no_grad():
        cache = tiny(ids[:, :5], use_cache=True).past_key_values
    shapes = {layer.keys.shape for layer in cache.layers}
    assert shapes == {(1, spec.num_kv_heads, 5, spec.head_dim)}
    assert spec.num_layers == len(cache.layers)
    assert spec.kv_bytes_per_token_per_layer * 5 == 2 * cache.layers[0].keys.nbytes
    assert spec.parameters == sum(p.numel() for p in tiny.parameters())
    assert spec.weight_bytes == 4 * spec.parameters
    assert (spec.name, spec.vocab_size, spec.max_positions) == (architecture, 97, 512)
    assert (spec.dtype, spec.dtype_bytes, spec.device) == ("float32", 4, "cpu")


def test_layers_that_slide_by_themselves_are_not_convertible() -> None:
    spec = describe(make_tiny("gemma3"))
    assert spec.layer_kinds == ("sliding", "full", "sliding", "full")
    assert spec.native_windows == (11, None, 11, None)
    assert spec.convertible_layers == (1, 3)
    assert "sees only the last 11 tokens" in spec.not_convertible[0]
    assert describe(make_tiny("mistral_sliding")).convertible_layers == ()


@pytest.mark.parametrize(("window", "kind"), [(511, "sliding"), (512, "full"), (4096, "full")])
def test_a_window_that_no_prompt_exceeds_is_full_attention(window: int, kind: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(MistralConfig(**SHARED, sliding_window=window))
    assert set(describe(model).layer_kinds) == {kind}


def test_bfloat16_halves_the_bytes() -> None:
    spec = describe(make_tiny("llama", torch.bfloat16))
    assert (spec.dtype, spec.dtype_bytes) == ("bfloat16", 2)
    assert spec.weight_bytes == 2 * spec.parameters


def test_tied_weights_count_once() -> None:
    tied, untied = (make_from(tie_word_embeddings=tie) for tie in (True, False))
    assert describe(untied).parameters - describe(tied).parameters == 97 * 48


def make_from(**changes: object) -> PreTrainedModel:
    config = make_tiny("llama").config
    config.update(changes)
    return AutoModelForCausalLM.from_config(config)


def test_a_model_with_pictures_is_described_by_its_text_part() -> None:
    text = make_tiny("gemma3").config
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision))
    spec = describe(model)
    assert (spec.num_layers, spec.num_heads, spec.head_dim) == (4, 6, 16)
    assert spec.family == "gemma3"


def test_configurations_with_other_names_for_the_same_things() -> None:
    config = GPT2Config(n_layer=3, n_head=4, n_embd=32, n_positions=64, vocab_size=97)
    with torch.device("meta"):
        spec = describe(AutoModelForCausalLM.from_config(config))
    facts = (spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.max_positions)
    assert facts == (3, 4, 4, 8, 64)


def test_layers_without_attention_are_named() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    config = Qwen3NextConfig(**SHARED, head_dim=16, layer_types=kinds, num_experts=2, num_experts_per_tok=1)
    with torch.device("meta"):
        spec = describe(AutoModelForCausalLM.from_config(config))
    assert spec.layer_kinds == ("other", "other", "other", "full")
    assert spec.not_convertible == dict.fromkeys(range(3), "has no attention")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (T5Config(), "encoder-decoder"),
        (MambaConfig(), "names no attention heads"),
        (Gemma3nTextConfig(), "reuse the keys of earlier layers"),
        (Llama4TextConfig(), "attend in chunks"),
        (DeepseekV3Config(), "latent attention"),
        (Gemma4TextConfig(), "differ in their number or size of heads"),
        (FalconH1Config(), "LinearAttentionAndFullAttentionLayer"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PreTrainedConfig) else "",
)
def test_what_would_be_wrong_is_refused_by_name(config: PreTrainedConfig, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        check_config(config)


def test_json_round_trip() -> None:
    spec = describe(make_tiny("gemma3"), notes="tiny")
    assert ModelSpec.from_json(spec.to_json()) == spec
