"""The score of the paper's first version, which cut every layer over a threshold in place of a fixed number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lighttransfer_core.laziness.metric import (
    LayerMeasured,
    LayerMetric,
    LayerView,
    MetricInfo,
    register,
    surviving_mass,
)
from lighttransfer_core.types import Window

THRESHOLDS: Final = {"llama-3": 0.9, "llama-2": 0.65, "mistral": 0.8, "qwen": 0.85}
"""By family of models, the masses over which the first version's code cut a layer; see `plan_from_threshold`."""


@dataclass(frozen=True)
class SimLayer(LayerMetric):
    """Mean over heads of the mass that the very last query puts on the tokens that would survive."""

    info = MetricInfo(
        name="simlayer",
        title="SimLayerKV",
        formula="mean over heads of the softmax mass of the last query on the first `sink` and last `recent` tokens",
        meaning="The first version asked one query only, and cut every layer over a threshold: "
        + ", ".join(f"{value} for {family}" for family, value in THRESHOLDS.items())
        + ".",
        source="SimLayerKV, arXiv 2410.13846 version 1, and its code",
        cost="one product per layer for one query",
    )

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        sink, recent = surviving_mass(layer.record, window, last)
        mass = (sink + recent).cpu().double()
        return LayerMeasured(float(mass[:, -1].mean()), mass[:, -1], mass.mean(dim=0))


register(SimLayer())
