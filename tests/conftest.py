"""Tiny random models of every family, and the exact reference that the library is held against.

Query and key weights are scaled up: default initialisation gives nearly uniform attention, which hides every mistake.
"""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

from collections.abc import Callable

import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

# Tiny tensors gain nothing from a second thread and lose much by waiting for one.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What has been imported by now stays, so collections of garbage need not look through it each time."""
    gc.freeze()


SHARED = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHARED),
    "mistral": lambda: MistralConfig(**SHARED, sliding_window=None),
    "mistral_sliding": lambda: MistralConfig(**SHARED, sliding_window=11),
    "qwen2": lambda: Qwen2Config(**SHARED),
    "qwen3": lambda: Qwen3Config(**SHARED, head_dim=16),
    "gemma3": lambda: Gemma3TextConfig(**SHARED, head_dim=16, sliding_window=11, sliding_window_pattern=2),
    "phi3": lambda: Phi3Config(**SHARED, sliding_window=None),
}
ARCHITECTURES = sorted(CONFIGS)


def make_tiny(architecture: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(7)
    config = CONFIGS[architecture]()
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")):
                weight.mul_(12.0)
    return model


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tiny(architecture: str) -> PreTrainedModel:
    """A tiny random model of each family, float32."""
    return make_tiny(architecture)


@pytest.fixture
def llama() -> PreTrainedModel:
    return make_tiny("llama")


def tokens(length: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randint(3, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character: no download."""
    characters = [chr(code) for code in range(32, 126)]
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<bos>", "<unk>", *characters])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", padding_side="left"
    )
