"""Small checkpoints on disk: folders of tiny random models, a byte tokenizer, a GGUF file, and the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lighttransfer_core.models import prepare_embedded
from tests.conftest import make_tiny
from tests.models.checkpoints import write_gguf

TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<s>system\nBe brief.</s>\n{% endif %}"
    "<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, with a chat template that has a system prompt of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{symbol: index for index, symbol in enumerate(alphabet, start=2)}}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE, model_max_length=512
    )


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    """A tiny Llama, written by `save_pretrained`, without a tokenizer."""
    folder = tmp_path / "tiny-llama"
    make_tiny("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """The tiny Llama as a GGUF file, with a vocabulary that names the `smollm` pre-tokenizer."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, make_tiny("llama"), pretokenizer="smollm")
    return file


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The embedded model, converted for real where that has not been done on this machine."""
    return prepare_embedded()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 97, (1, 40), generator=torch.Generator().manual_seed(0))
