"""What a laziness metric is, and the registry of them.

A metric is one file with one dataclass, registered by name. It sees one layer's attention on one prompt and gives one
number per query head and last query; how those become the layer's score is `reduce`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import UnknownMetricError
from lighttransfer_core.types import JsonRecord, Window

_registry: dict[str, Metric] = {}


@dataclass(frozen=True)
class MetricInfo(JsonRecord):
    """What a page says of a metric."""

    name: str
    title: str
    formula: str
    meaning: str
    source: str
    cost: str


class Metric(ABC):
    """Higher is lazier, for every metric."""

    info: ClassVar[MetricInfo]

    def query_rows(self, last: int) -> int | None:
        """What the metric needs: the queries of the last so many rows; None: of all rows."""
        return last

    @abstractmethod
    def per_pair(self, record: LayerRecord, window: Window, last: int) -> Tensor:
        """`[H, last]` float32: the metric of each query head and each of the last queries."""

    def reduce(self, values: Tensor, dim: int | tuple[int, int]) -> Tensor:
        """How heads or queries, or both, become one number; the mean unless a metric says otherwise."""
        return values.mean(dim=dim)


def register(metric: Metric) -> Metric:
    """Adds a metric to the registry."""
    _registry[metric.info.name] = metric
    return metric


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises
    ------
    UnknownMetricError
        No metric has that name.
    """
    if name not in _registry:
        raise UnknownMetricError(f"{name!r} is not a laziness metric: choose one of {', '.join(list_metrics())}.")
    return _registry[name]


def list_metrics() -> list[str]:
    """Names of the registered metrics."""
    return sorted(_registry)


def metric_info(name: str) -> MetricInfo:
    """What a page says of that metric."""
    return get_metric(name).info


def surviving_mass(record: LayerRecord, window: Window, last: int) -> tuple[Tensor, Tensor]:
    """Attention mass `[H, last]` of the last queries on the sinks and on the recent tokens that a cut would keep.

    The kept set is fixed at the prompt's end: its first `sink` and last `recent` tokens, without counting any twice.
    """
    total = record.num_tokens
    rows = (total - min(last, total), total)
    sink = min(window.sink, total)
    return record.mass(rows, (0, sink)), record.mass(rows, (max(sink, total - window.recent), total))
