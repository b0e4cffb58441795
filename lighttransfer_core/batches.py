"""Several sequences that decode in step under one plan: one prompt copied, or a cache of any length made up.

Each of the B sequences has keys and values of its own, so a batch costs honestly B times the memory. What is made up
has the shapes, types and devices of the real thing: how long a step takes does not depend on the values.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from lighttransfer_core.attention import attention_layers, input_device, one_pass
from lighttransfer_core.cache import FullLayer, HybridCache, HybridLayer, Segment, StaticPolicy, StreamingLayer
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import InvalidInputError, InvalidPromptError
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.token_ids import likeliest
from lighttransfer_core.types import ConversionPlan, Window, is_integer

Result = TypeVar("Result")
Filling = Generator[None, None, Result]
"""Work in short turns, with a result at the end."""

_NO_PLAN = ConversionPlan()


@dataclass(frozen=True, eq=False)
class BatchStep:
    """One step: the tokens `[B]` that it chose, and the seconds of its own synchronised compute."""

    token_ids: Tensor
    latency_s: float


class Batch:
    """B sequences that decode greedily, all at once.

    Parameters
    ----------
    cache
        What has been seen, `[B, ...]` in every layer.
    token_ids
        `[B]`; the tokens that come next.
    """

    def __init__(self, lm: LoadedModel, cache: HybridCache, token_ids: Tensor) -> None:
        self.lm, self.cache = lm, cache
        self._next = token_ids.reshape(-1, 1)

    @property
    def size(self) -> int:
        return self._next.shape[0]

    @torch.no_grad()
    def step(self) -> BatchStep:
        """Feeds each sequence its next token and chooses the one after it.

        Raises
        ------
        InvalidPromptError
            The texts would outgrow the model's positions.
        """
        model = self.lm.model
        check_room(self.lm.spec, self.cache.seen_tokens, 1)
        began = time.perf_counter()
        with one_pass(model):
            output = model(
                input_ids=self._next.to(input_device(model)),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        chosen = likeliest(output.logits[:, -1])
        latency_s = time.perf_counter() - began
        self._next = chosen[:, None]
        return BatchStep(chosen, latency_s)


def repeated(prefill: Prefill, plan: ConversionPlan | None, batch: int) -> Filling[Batch]:
    """A kept prompt `batch` times, its keys and values copied as often, a layer a turn.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    """
    check_batch(batch)
    cache = Branch(prefill, plan).cache
    rows = torch.zeros(batch, dtype=torch.long)
    for layer in cache.layers:
        yield
        assert isinstance(layer, HybridLayer)
        layer.reorder_cache(rows)
    first = likeliest(prefill.logits).expand(batch)
    return Batch(prefill.lm, cache, first)


def made_up(lm: LoadedModel, plan: ConversionPlan | None, tokens: int, batch: int) -> Filling[Batch]:
    """A batch that has seen `tokens` tokens with random keys and values, without a prefill; a layer a turn.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    InvalidPromptError
        More tokens than the model has positions.
    """
    check_batch(batch)
    plan = plan or _NO_PLAN
    check_plan(plan, lm.spec)
    if not is_integer(tokens) or not 1 <= tokens <= lm.spec.max_positions:
        raise InvalidPromptError(
            f"{tokens} tokens are out of range: {lm.spec.name} has {lm.spec.max_positions:,} positions; give 1 to that."
        )
    # what one real token leaves behind tells each layer's shapes, dtype and device
    pattern = run_prefill(lm, torch.zeros(1, 1, dtype=torch.long))
    kinds = attention_layers(lm.model.config)
    layers: list[CacheLayerMixin] = []
    for record, kind in zip(pattern.records, kinds, strict=True):
        yield
        lazy = plan.window if record.layer in plan.lazy_layers else None
        window = Window(sink=0, recent=kind.window) if kind.window is not None else lazy
        layers.append(_made_up_layer(record.key, record.value, tokens, batch, window))
    cache = HybridCache(kinds, plan.window, StaticPolicy(plan), layers=layers)
    return Batch(lm, cache, torch.randint(0, lm.spec.vocab_size, (batch,)))


def random_like(pattern: Tensor, tokens: int, batch: int) -> Tensor:
    """`[B, Hk, tokens, D]` of the pattern's `[Hk, 1, D]`.

    Random, not zeros: the CPU gives untouched zero pages one page of memory between them all, which is read from the
    processor's cache.
    """
    heads, _, dim = pattern.shape
    return pattern.new_empty(batch, heads, tokens, dim).uniform_(-1.0, 1.0)


def _made_up_layer(key: Tensor, value: Tensor, tokens: int, batch: int, window: Window | None) -> CacheLayerMixin:
    stored = tokens if window is None else min(tokens, window.size)
    segment = Segment(random_like(key, stored, batch), random_like(value, stored, batch), stored)
    if window is None:
        return FullLayer(segment)
    layer = StreamingLayer(window, segment, None)
    layer.seen = tokens  # which of the random tokens lies in which slot does not matter
    return layer


def check_batch(batch: int) -> None:
    """Refuses what is no number of sequences."""
    if not is_integer(batch) or batch < 1:
        raise InvalidInputError(f"batch={batch!r} is not a number of sequences: give at least 1.")
