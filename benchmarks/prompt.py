"""The prompt of the benchmarks: the demo documents, one after the other."""

from __future__ import annotations

import tomllib
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_PROMPTS = Path(__file__).resolve().parent.parent / "assets" / "prompts"


def demo_text() -> str:
    """The demo documents, one after the other."""
    files = sorted(_PROMPTS.glob("*.toml"))
    return "\n\n".join(tomllib.loads(file.read_text(encoding="utf-8"))["text"] for file in files)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> Tensor:
    """`[1, num_tokens]` ids of the demo documents."""
    ids = torch.tensor([tokenizer(demo_text(), truncation=True, max_length=num_tokens)["input_ids"]])
    assert ids.shape[1] == num_tokens, f"the demo documents have only {ids.shape[1]} tokens"
    return ids
