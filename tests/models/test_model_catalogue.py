"""The catalogue: sizes against transformers' own models of that shape, and KV bytes against the cost formulas."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.models.catalogue import CatalogueEntry, catalogue, find
from lighttransfer_core.models.spec import describe
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window

# hidden size, intermediate size, vocabulary and tied embeddings, as each model's config.json on the hub has them.
SHAPES = {
    "smollm2": (576, 1536, 49_152, True),
    "smollm2-135m": (576, 1536, 49_152, True),
    "smollm2-360m": (960, 2560, 49_152, True),
    "smollm2-1.7b": (2048, 8192, 49_152, True),
    "smollm3-3b": (2048, 11_008, 128_256, True),
    "llama-3-8b": (4096, 14_336, 128_256, False),
    "llama-3.1-8b": (4096, 14_336, 128_256, False),
    "llama-3.2-1b": (2048, 8192, 128_256, True),
    "llama-3.2-3b": (3072, 8192, 128_256, True),
    "llama-3.3-70b": (8192, 28_672, 128_256, False),
    "mistral-7b": (4096, 14_336, 32_768, False),
    "qwen2.5-0.5b": (896, 4864, 151_936, True),
    "qwen2.5-1.5b": (1536, 8960, 151_936, True),
    "qwen2.5-3b": (2048, 11_008, 151_936, True),
    "qwen2.5-7b": (3584, 18_944, 152_064, False),
    "qwen2.5-14b": (5120, 13_824, 152_064, False),
    "qwen2.5-32b": (5120, 27_648, 152_064, False),
    "qwen3-0.6b": (1024, 3072, 151_936, True),
    "qwen3-1.7b": (2048, 6144, 151_936, True),
    "qwen3-4b": (2560, 9728, 151_936, True),
    "qwen3-8b": (4096, 12_288, 151_936, False),
    "qwen3-14b": (5120, 17_408, 151_936, False),
    "qwen3-32b": (5120, 25_600, 151_936, False),
    "gemma-3-1b": (1152, 6912, 262_144, True),
    "gemma-3-4b": (2560, 10_240, 262_208, True),
    "gemma-3-12b": (3840, 15_360, 262_208, True),
    "gemma-3-27b": (5376, 21_504, 262_208, True),
}
CONFIG_CLASSES = {
    "SmolLM2": LlamaConfig,
    "SmolLM3": SmolLM3Config,
    "Llama 3": LlamaConfig,
    "Mistral": MistralConfig,
    "Qwen2.5": Qwen2Config,
    "Qwen3": Qwen3Config,
    "Gemma 3": Gemma3TextConfig,
}


VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
"""The image encoder that the larger Gemma 3 models share."""


def build_on_meta(entry: CatalogueEntry) -> torch.nn.Module:
    hidden, intermediate, vocabulary, tied = SHAPES[entry.name]
    sliding = {} if entry.family != "Mistral" else {"sliding_window": None}
    if entry.sliding_window is not None:
        sliding = {"sliding_window": entry.sliding_window}
    config = CONFIG_CLASSES[entry.family](
        hidden_size=hidden,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        num_hidden_layers=entry.layers,
        num_attention_heads=entry.heads,
        num_key_value_heads=entry.kv_heads,
        head_dim=entry.head_dim,
        max_position_embeddings=entry.max_positions,
        tie_word_embeddings=tied,
        pad_token_id=None,
        **sliding,
    )
    if entry.family == "Gemma 3" and entry.name != "gemma-3-1b":
        config = Gemma3Config(text_config=config, vision_config=VISION)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if entry.dtype_bytes == 4 else torch.bfloat16
        )


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_sizes_are_those_of_the_model(name: str) -> None:
    entry = find(name)
    assert entry is not None
    spec = describe(build_on_meta(entry), name)
    assert spec.parameters == entry.parameters
    assert spec.weight_bytes == entry.weight_bytes
    assert len(spec.convertible_layers) == entry.full_layers
    for num_tokens in (1, 700, 8192):
        assert kv_bytes(spec, None, num_tokens) == entry.kv_bytes(num_tokens)
    _check_unloaded(entry.spec(), spec)


def _check_unloaded(unloaded: ModelSpec, spec: ModelSpec) -> None:
    """The spec without weights has the same totals, whichever layers slide."""
    for name in ("num_layers", "num_heads", "num_kv_heads", "head_dim", "max_positions", "dtype", "weight_bytes"):
        assert getattr(unloaded, name) == getattr(spec, name), name
    assert sorted(unloaded.layer_kinds) == sorted(spec.layer_kinds)
    window = Window(4, 100)
    plans = [
        ConversionPlan(one.convertible_layers[: len(one.convertible_layers) // 2], window) for one in (unloaded, spec)
    ]
    for num_tokens in (1, 700, 8192):
        assert kv_bytes(unloaded, None, num_tokens, 3) == kv_bytes(spec, None, num_tokens, 3)
        assert kv_bytes(unloaded, plans[0], num_tokens) == kv_bytes(spec, plans[1], num_tokens)
    assert all("slides" in reason for reason in unloaded.not_convertible.values())


def test_every_entry_is_checked() -> None:
    assert {entry.name for entry in catalogue()} == set(SHAPES)


def test_bytes_of_a_further_token() -> None:
    for entry in catalogue():
        beyond_any_window = 5000
        assert entry.kv_bytes(beyond_any_window + 1) - entry.kv_bytes(beyond_any_window) == entry.kv_bytes_per_token


def test_published_figures() -> None:
    llama = find("meta-llama/Llama-3.1-8B-Instruct")
    assert llama is not None
    assert llama.name == "llama-3.1-8b"
    assert llama.kv_bytes_per_token == 131_072
    assert catalogue()[0].name == "smollm2"
    assert catalogue()[0].hub_id is None
    assert "4 bits" in catalogue()[0].notes


def test_names_are_unique_and_found_in_any_case() -> None:
    names = [entry.name for entry in catalogue()]
    assert len(set(names)) == len(names)
    assert find("SMOLLM2") is catalogue()[0]
    assert find("") is None
    assert find("no-such-model") is None


def test_json_round_trip() -> None:
    for entry in catalogue():
        assert CatalogueEntry.from_json(entry.to_json()) == entry


def test_reading_the_catalogue_imports_no_torch() -> None:
    code = (
        "import sys, lighttransfer_core.models, lighttransfer_core.cost.formulas;"
        "from lighttransfer_core.models.catalogue import catalogue; catalogue();"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
