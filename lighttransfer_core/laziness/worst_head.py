"""The paper's mass, judged by its worst head: one head that retrieves is enough to keep a layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.laziness.metric import MetricInfo, PairMetric, register, surviving_mass
from lighttransfer_core.types import Window


@dataclass(frozen=True)
class WorstHead(PairMetric):
    """Least attention mass that any head of any last query puts on the tokens that would survive."""

    info = MetricInfo(
        name="worst_head",
        title="Worst head",
        formula="minimum over heads and last queries of the softmax mass on the first `sink` and last `recent` tokens",
        meaning="How much the most far-sighted head of a layer would still see. A mean hides that head; this does not.",
        source="this project; it reads the same masses as LightTransfer's equation 1",
        cost="the same as the lazy ratio",
    )

    def per_pair(self, record: LayerRecord, window: Window, last: int) -> Tensor:
        sink, recent = surviving_mass(record, window, last)
        return sink + recent

    def reduce(self, values: Tensor, dim: int | tuple[int, int]) -> Tensor:
        return values.amin(dim=dim)


register(WorstHead())
