"""The sides that the core benchmark lets take turns: transformers' default and ours, with the same weights."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from lighttransfer_core.attention import input_device
from lighttransfer_core.cache import HybridCache
from lighttransfer_core.generation import hybrid
from lighttransfer_core.laziness import OnTheFly
from lighttransfer_core.models import LoadedModel, prepare_embedded
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import ConversionPlan

_PROMPTS = Path(__file__).resolve().parent.parent / "assets" / "prompts"
_FIRST_ID = 28


def load_theirs(dtype: str, device: torch.device) -> PreTrainedModel:
    """The embedded model as transformers loads it, with its `sdpa` attention."""
    model = AutoModelForCausalLM.from_pretrained(
        prepare_embedded(),
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
        device_map={"": device},
        local_files_only=True,
    )
    loaded: PreTrainedModel = model.eval()
    return loaded


def demo_text() -> str:
    """The demo documents, one after the other."""
    files = sorted(_PROMPTS.glob("*.toml"))
    return "\n\n".join(tomllib.loads(file.read_text(encoding="utf-8"))["text"] for file in files)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> Tensor:
    """`[1, num_tokens]` ids of the demo documents."""
    ids = torch.tensor([tokenizer(demo_text(), truncation=True, max_length=num_tokens)["input_ids"]])
    assert ids.shape[1] == num_tokens, f"the demo documents have only {ids.shape[1]} tokens"
    return ids


@torch.no_grad()
def prefill_theirs(model: PreTrainedModel, ids: Tensor) -> DynamicCache:
    """A whole prompt in one pass, into transformers' default cache."""
    cache = DynamicCache(config=model.config)
    model(input_ids=ids.to(input_device(model)), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


@torch.no_grad()
def prefill_hybrid(model: PreTrainedModel, ids: Tensor, plan: ConversionPlan | OnTheFly) -> HybridCache:
    """A whole prompt in one pass, into a hybrid cache that records nothing."""
    with hybrid(model, plan) as cache:
        model(input_ids=ids.to(input_device(model)), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def recast(prefill: Prefill, lm: LoadedModel) -> Prefill:
    """The prefill with its keys, values and queries in the element type of `lm`, to decode with: a step's time does not
    depend on how its prompt was computed, and CPUs without bfloat16 products take minutes for one."""
    dtype = lm.model.dtype
    records = tuple(
        replace(r, query=r.query.to(dtype), key=r.key.to(dtype), value=r.value.to(dtype)) for r in prefill.records
    )
    return replace(prefill, lm=lm, records=records)


def their_cache(prefill: Prefill) -> DynamicCache:
    """transformers' default cache after the same prompt."""
    cache = DynamicCache(config=prefill.lm.model.config)
    for record in prefill.records:
        cache.update(record.key[None].clone(), record.value[None].clone(), record.layer)
    return cache


def repeat_rows(cache: Any, batch: int) -> Any:
    """The cache with its one row repeated, each copy in memory of its own."""
    if batch > 1:
        cache.batch_repeat_interleave(batch)
    return cache


class Stepper:
    """Decodes greedily: each call is one token for every row of the batch."""

    def __init__(self, model: PreTrainedModel, cache: Any, batch: int) -> None:
        self._model, self._cache = model, cache
        self._ids = torch.full((batch, 1), _FIRST_ID, device=input_device(model))

    @torch.no_grad()
    def __call__(self) -> None:
        output = self._model(input_ids=self._ids, past_key_values=self._cache, use_cache=True)
        self._ids = output.logits[:, -1:].argmax(dim=-1)
