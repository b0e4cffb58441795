"""The kvpress worker with a press that stands in for kvpress's, which needs an environment of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks.workers.protocol import KVPRESS, Unavailable
from tests.benchmarks.conftest import IDS, WINDOW

SCORES = (0.9, 0.2, 0.7, 0.4)


@dataclass
class StandIn:
    """Judges the layers by fixed scores, and cuts as the press does, with its arguments and attributes."""

    lazy_threshold: float = 1.0
    n_last: int = 1
    n_recent: int = 1024
    n_initial: int = 4
    compression_ratios: list[float] = field(default_factory=list)

    def is_lazy(self, layer: int) -> bool:
        return SCORES[layer] > self.lazy_threshold

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        self.compression_ratios = []
        hooks = [layer.self_attn.register_forward_hook(self._cut, with_kwargs=True) for layer in model.model.layers]
        yield
        for hook in hooks:
            hook.remove()

    def _cut(self, module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> None:
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        length = layer.keys.shape[2]
        lazy = length > self.n_initial + self.n_recent + self.n_last and self.is_lazy(module.layer_idx)
        if lazy:
            recent = self.n_recent - self.n_last
            for name in ("keys", "values"):
                kept = getattr(layer, name)
                setattr(layer, name, torch.cat([kept[:, :, : self.n_initial], kept[:, :, -recent:]], dim=2))
        self.compression_ratios.append(1 - layer.keys.shape[2] / length)


@pytest.fixture
def worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    kvpress = ModuleType("kvpress")
    kvpress.SimLayerKVPress = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kvpress", kvpress)
    monkeypatch.delitem(sys.modules, "benchmarks.workers.kvpress_worker", raising=False)
    module = importlib.import_module("benchmarks.workers.kvpress_worker")
    made = module.KvpressWorker(str(folder), "cpu", "2", str(WINDOW.sink), str(WINDOW.recent))
    made.prompt(IDS)
    return made


def test_the_threshold_makes_as_many_layers_lazy_as_ours(worker: Any) -> None:
    found = worker.prefill(KVPRESS, 100)
    assert worker._thresholds[100] == pytest.approx((0.7 + 0.4) / 2, abs=1e-6)
    assert found["lazy_layers"] == 2
    row = 2 * 2 * 8 * 4
    assert found["kept_bytes"] == row * (2 * 100 + 2 * WINDOW.size), "a lazy layer keeps as much as ours"


def test_lazy_layers_grow_and_positions_go_on_from_the_prompt(worker: Any) -> None:
    worker.open(KVPRESS, 100, 3, "bfloat16")
    found = worker.steps(KVPRESS, 5)
    assert found["kv_bytes"] == 3 * 2 * 2 * 8 * 2 * (2 * 105 + 2 * (WINDOW.size + 5))
    assert worker._decoding[KVPRESS]._seen == 105


def test_a_prompt_that_fits_the_window_is_cut_nowhere(worker: Any) -> None:
    found = worker.prefill(KVPRESS, WINDOW.size)
    assert (found["lazy_layers"], worker._thresholds[WINDOW.size]) == (0, 1.0)
    assert worker.lazy_layers(KVPRESS, WINDOW.size) == 0
    assert worker.lazy_layers(KVPRESS, 100) == 2


def test_what_a_press_cannot_do_is_said(worker: Any) -> None:
    with pytest.raises(Unavailable, match="one pass"):
        worker.prefill(KVPRESS, 100, chunk=32)
    with pytest.raises(Unavailable, match="a prompt that was run"):
        worker.open(KVPRESS, 100, 1, "float32", made_up=True)
