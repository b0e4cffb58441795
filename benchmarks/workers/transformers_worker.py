"""transformers' own caches and its capture: `python -m benchmarks.workers.transformers_worker FOLDER DEVICE`.

Everything is called as its users call it: `sdpa` attention, and `eager` where attention weights are asked for.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, QuantizedCache, StaticCache
from transformers.utils.logging import disable_progress_bar

from benchmarks.workers.caches import CacheDecoder, cache_bytes, held_bytes, randomly_filled, refilled
from benchmarks.workers.protocol import DYNAMIC, EAGER, QUANTIZED, STATIC, Unavailable, serve
from benchmarks.workers.worker import ROOM, Decoder, Prompted, Worker, plain_model


class TransformersWorker(Worker[Any]):
    """Keeps prompts in a `DynamicCache`, from which the other caches are filled."""

    def load(self, dtype: str) -> PreTrainedModel:
        return plain_model(self.folder, dtype, self.device)

    def run(self, side: str, ids: Tensor, chunk: int) -> Prompted[Any]:
        if side == EAGER:
            return self._with_attentions(ids)
        cache = self._empty(side, ids.shape[1])
        for part in ids.split(chunk or ids.shape[1], dim=1):
            self._forward(ids=part, cache=cache)
        return Prompted(cache, cache_bytes(cache))

    def available(self, side: str) -> None:
        self._empty(side, 1)

    def prompted_by(self, side: str) -> str:
        return DYNAMIC

    def decoder(self, side: str, finished: Any, batch: int, dtype: str) -> Decoder:
        cache = refilled(finished, self._empty(side, finished.get_seq_length()), batch, dtype)
        return CacheDecoder(self.model(dtype), cache, batch)

    def made_up(self, side: str, tokens: int, batch: int, dtype: str) -> Decoder:
        model = self.model(dtype)
        return CacheDecoder(model, randomly_filled(model, self._empty(side, tokens), tokens, batch), batch)

    @torch.no_grad()
    def _forward(self, ids: Tensor, cache: Any, **asked: bool) -> Any:
        return self.model("float32")(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **asked)

    def _with_attentions(self, ids: Tensor) -> Prompted[Any]:
        model, cache = self.model("float32"), DynamicCache(config=self.model("float32").config)
        model.set_attn_implementation("eager")
        try:
            attentions = self._forward(ids=ids, cache=cache, output_attentions=True).attentions
        finally:
            model.set_attn_implementation("sdpa")
        return Prompted((cache, attentions), cache_bytes(cache) + held_bytes(attentions))

    def _empty(self, side: str, tokens: int) -> Any:
        config = self.model("float32").config
        if side == STATIC:
            return StaticCache(config=config, max_cache_len=tokens + ROOM)
        if side not in QUANTIZED:
            return DynamicCache(config=config)
        try:
            return QuantizedCache(QUANTIZED[side], config)
        except ImportError as error:
            raise Unavailable(f"its package is not installed ({QUANTIZED[side]})") from error


if __name__ == "__main__":
    disable_progress_bar()
    serve(TransformersWorker(*sys.argv[1:]))
