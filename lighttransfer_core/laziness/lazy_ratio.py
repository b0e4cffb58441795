"""The paper's score."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.laziness.metric import MetricInfo, PairMetric, register, surviving_mass
from lighttransfer_core.types import Window


@dataclass(frozen=True)
class LazyRatio(PairMetric):
    """Mean attention mass of the last queries on the tokens that would survive. arXiv 2410.13846, equation 1."""

    info = MetricInfo(
        name="lazy_ratio",
        title="Lazy ratio",
        formula="mean over heads and last queries of the softmax mass on the first `sink` and last `recent` tokens",
        meaning="How much of a layer's attention already falls on what a streaming layer keeps, on average.",
        source="LightTransfer, arXiv 2410.13846, equation 1",
        cost="one small product per layer, independent of the prompt's length",
    )

    def per_pair(self, record: LayerRecord, window: Window, last: int) -> Tensor:
        sink, recent = surviving_mass(record, window, last)
        return sink + recent


register(LazyRatio())
