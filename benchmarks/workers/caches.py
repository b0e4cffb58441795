"""transformers' caches as workers use them: filled, stepped and counted, in whatever version of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.workers.worker import timed

_FIRST_ID = 28


class CacheDecoder:
    """A model that decodes greedily into one of transformers' caches.

    Parameters
    ----------
    seen
        Tokens of each sequence so far. Given, positions are counted here and told to the model: after layers were cut,
        the cache no longer knows them.
    """

    def __init__(self, model: PreTrainedModel, cache: Any, batch: int, seen: int | None = None) -> None:
        self._model, self._cache, self._seen = model, cache, seen
        self._ids = torch.full((batch, 1), _FIRST_ID, device=model.device)

    def step(self) -> float:
        self._ids, seconds = timed(self._next, self._model.device)
        return seconds

    def kv_bytes(self) -> int:
        return cache_bytes(self._cache)

    @torch.no_grad()
    def _next(self) -> Tensor:
        places: dict[str, Tensor] = {}
        if self._seen is not None:
            here = torch.tensor([self._seen], device=self._model.device)
            places = {"position_ids": here.expand(len(self._ids), 1), "cache_position": here}
            self._seen += 1
        output = self._model(
            input_ids=self._ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1, **places
        )
        chosen: Tensor = output.logits[:, -1:].argmax(dim=-1)
        return chosen


def refilled(prompt: Any, into: Any, batch: int, dtype: str) -> Any:
    """The empty cache `into` with `batch` copies of the one sequence of another, in memory of their own."""
    for index, layer in enumerate(prompt.layers):
        key, value = (tensor.to(getattr(torch, dtype)) for tensor in (layer.keys, layer.values))
        into.update(key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1), index)
    return into


def randomly_filled(model: PreTrainedModel, into: Any, tokens: int, batch: int) -> Any:
    """The empty cache `into` with `tokens` random keys and values in every layer."""
    config = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (batch, config.num_key_value_heads, tokens, dim)
    for index in range(config.num_hidden_layers):
        key, value = (torch.empty(shape, dtype=model.dtype, device=model.device).uniform_(-1, 1) for _ in range(2))
        into.update(key, value, index)
    return into


def cache_bytes(cache: Any) -> int:
    """Bytes of all tensors that hold keys and values, quantised or not, with scales and zero points."""
    names = ("keys", "values", "_quantized_keys", "_quantized_values")
    return sum(held_bytes(getattr(layer, name, None)) for layer in cache.layers for name in names)


def held_bytes(value: Any) -> int:
    """Bytes of a tensor, of the tensors that a quantised one is made of, or of all in a collection."""
    if hasattr(value, "__tensor_flatten__"):
        return sum(held_bytes(getattr(value, name)) for name in value.__tensor_flatten__()[0])
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, dict):
        return sum(held_bytes(one) for one in value.values())
    return sum(held_bytes(one) for one in value) if isinstance(value, tuple | list) else 0
