"""kvpress's own SimLayerKV: `PYTHON -m benchmarks.workers.kvpress_worker FOLDER DEVICE LAZY SINK RECENT`.

Runs in an environment of its own, since kvpress 0.5.5 needs transformers below 5.3 (see
`benchmarks.workers.environment`). Its press takes a threshold instead of a number of layers: per prompt, the one that
makes LAZY layers lazy is found first, with its own test. Its window is set so that a lazy layer keeps SINK + RECENT
tokens after the prompt, as ours does; in kvpress it then grows with every token.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from kvpress import SimLayerKVPress
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from benchmarks.workers.caches import CacheDecoder, cache_bytes, refilled
from benchmarks.workers.protocol import Unavailable, serve
from benchmarks.workers.worker import Decoder, Prompted, Worker, plain_model

_HALVINGS = 24


@dataclass
class Judge(SimLayerKVPress):
    """Cuts nothing, and notes the threshold at which the press's verdict on each layer turns."""

    lazy_threshold: float = 0.5
    turns: list[float] = field(default_factory=list)

    def is_lazy(self, *layer: Any) -> bool:
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            self.lazy_threshold = (low + high) / 2
            low, high = (self.lazy_threshold, high) if super().is_lazy(*layer) else (low, self.lazy_threshold)
        self.turns.append(low)
        return False


class KvpressWorker(Worker[tuple[DynamicCache, int]]):
    """Keeps prompts as the press left them, with their lengths."""

    def __init__(self, folder: str, device: str, lazy: str, sink: str, recent: str) -> None:
        super().__init__(folder, device)
        self._lazy, self._sink, self._recent = int(lazy), int(sink), int(recent)
        self._thresholds: dict[int, float] = {}

    def load(self, dtype: str) -> PreTrainedModel:
        return plain_model(self.folder, dtype, self.device)

    def run(self, side: str, ids: Tensor, chunk: int) -> Prompted[tuple[DynamicCache, int]]:
        if chunk:
            raise Unavailable("its presses take a prompt in one pass only")
        press = self._press(SimLayerKVPress, self._thresholds[ids.shape[1]])
        cache = self._forward(press, ids)
        lazy = sum(ratio > 0 for ratio in press.compression_ratios)
        return Prompted((cache, ids.shape[1]), cache_bytes(cache), lazy)

    def ready(self, side: str, tokens: int) -> None:
        if tokens in self._thresholds:
            return
        judge = self._press(Judge, 0.5)
        self._forward(judge, self.ids[:, :tokens].to(self.device))
        self._thresholds[tokens] = threshold(judge.turns, self._lazy)

    def decoder(self, side: str, finished: tuple[DynamicCache, int], batch: int, dtype: str) -> Decoder:
        prompt, seen = finished
        cache = refilled(prompt, DynamicCache(), batch, dtype)
        return CacheDecoder(self.model(dtype), cache, batch, seen)

    def made_up(self, side: str, tokens: int, batch: int, dtype: str) -> Decoder:
        raise Unavailable("its presses cut a prompt that was run, and nothing else")

    def _press(self, kind: type[SimLayerKVPress], lazy_threshold: float) -> SimLayerKVPress:
        # of n_recent tokens the press keeps all but n_last, which is 1
        return kind(lazy_threshold=lazy_threshold, n_initial=self._sink, n_recent=self._recent + 1)

    @torch.no_grad()
    def _forward(self, press: SimLayerKVPress, ids: Tensor) -> DynamicCache:
        model, cache = self.model("float32"), DynamicCache()
        with press(model):
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache


def threshold(turns: list[float], lazy: int) -> float:
    """Halfway between the `lazy` highest of the layers' own thresholds and the rest; 1, which cuts nothing, where the
    prompt is too short for the press to judge any."""
    ranked = [*sorted(turns, reverse=True), 0.0]
    return (ranked[lazy - 1] + ranked[lazy]) / 2 if turns else 1.0


if __name__ == "__main__":
    logging.getLogger("kvpress").setLevel(logging.ERROR)  # of a short prompt every layer says that it is short
    disable_progress_bar()
    serve(KvpressWorker(*sys.argv[1:]))
