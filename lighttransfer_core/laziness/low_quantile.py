"""The paper's mass, judged by its far-sighted heads and queries: softer than the single worst one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.laziness.metric import MetricInfo, PairMetric, register, surviving_mass
from lighttransfer_core.types import Window

PERCENTS = (1, 5, 25)


@dataclass(frozen=True)
class LowQuantile(PairMetric):
    """A low quantile of the mass that survives, over all heads and last queries."""

    info: MetricInfo
    quantile: float

    def per_pair(self, record: LayerRecord, window: Window, last: int) -> Tensor:
        sink, recent = surviving_mass(record, window, last)
        return sink + recent

    def reduce(self, values: Tensor, dim: int | tuple[int, int]) -> Tensor:
        if isinstance(dim, int):
            return torch.quantile(values, self.quantile, dim=dim)
        return torch.quantile(values.flatten(), self.quantile)


for _percent in PERCENTS:
    register(
        LowQuantile(
            MetricInfo(
                name=f"low_quantile_{_percent:02d}",
                title=f"Low quantile, {_percent}%",
                formula=f"{_percent}% quantile over heads and last queries of the softmax mass on the first `sink` "
                "and last `recent` tokens, with linear interpolation",
                meaning="Between the mean, which hides the head that retrieves, and the worst one, which one odd "
                "query can decide.",
                source="this project; it reads the same masses as LightTransfer's equation 1",
                cost="the same as the lazy ratio",
            ),
            _percent / 100,
        )
    )
