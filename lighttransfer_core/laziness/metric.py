"""What a laziness metric is, and the registry of them.

A metric is one file with one dataclass, registered by name. Most read one layer's attention on one prompt at a time
(`LayerMetric`), so they also work while the prompt passes; others try layers out on the whole prompt, or look at
nothing but the layer's place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.attention.projection import output_projections
from lighttransfer_core.errors import UnknownMetricError
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import JsonRecord, Window

MetricKind = Literal["prompt", "probe", "trial", "control"]
"""Read off the prompt’s attention, or off tokens read after it; found by trying layers out; a control that looks at
neither."""

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
    kind: MetricKind = "prompt"


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric on all layers: `values` `[L]` float64 and, where the metric has such parts, the same per head `[L, H]`
    and per query `[L, last]`."""

    values: Tensor
    per_head: Tensor | None = None
    per_query: Tensor | None = None


class Metric(ABC):
    """Higher is lazier, for every metric."""

    info: MetricInfo

    def query_rows(self, last: int) -> int | None:
        """What the metric needs: the queries of the last so many rows; None: of all rows."""
        return last

    @abstractmethod
    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        """The metric of every layer on one prompt."""

    def measure_steps(self, prefill: Prefill, window: Window, last: int) -> Generator[str, None, Measured]:
        """`measure` in short turns, each told in words; a single turn where a metric does not say otherwise."""
        yield from ()
        return self.measure(prefill, window, last)


@dataclass(frozen=True, eq=False)
class LayerView:
    """One layer on one prompt: its attention, on request its output projection `[hidden, H * D]`, and where it is known
    already the attention output `[H, n, D]` of the last rows."""

    record: LayerRecord
    projection: Callable[[], Tensor]
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerMeasured:
    """A metric on one layer: one number, and the same per head `[H]` and per query `[last]`, float64."""

    value: float
    per_head: Tensor
    per_query: Tensor


class LayerMetric(Metric):
    """A metric that needs one layer at a time."""

    @abstractmethod
    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        """The metric of one layer."""

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        found = [self.of_layer(view, window, last) for view in layer_views(prefill)]
        return Measured(
            torch.tensor([one.value for one in found], dtype=torch.float64),
            torch.stack([one.per_head for one in found]),
            torch.stack([one.per_query for one in found]),
        )


class PairMetric(LayerMetric):
    """A metric with one number per query head and last query; how those become the layer's is `reduce`."""

    @abstractmethod
    def per_pair(self, record: LayerRecord, window: Window, last: int) -> Tensor:
        """`[H, last]`."""

    def reduce(self, values: Tensor, dim: int | tuple[int, int]) -> Tensor:
        """How heads or queries, or both, become one number; the mean unless a metric says otherwise."""
        return values.mean(dim=dim)

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        pairs = self.per_pair(layer.record, window, last).cpu().double()
        return LayerMeasured(float(self.reduce(pairs, (0, 1))), self.reduce(pairs, 1), self.reduce(pairs, 0))


def layer_views(prefill: Prefill) -> list[LayerView]:
    """Every layer of a prefill, as metrics see it."""
    weight = output_projections(prefill.lm.model)
    return [LayerView(one, partial(weight, one.layer), one.output) for one in prefill.records]


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


def list_metrics(kind: MetricKind | None = None) -> list[str]:
    """Names of the registered metrics, of one kind if that is given."""
    return sorted(name for name, metric in _registry.items() if kind in (None, metric.info.kind))


def metric_info(name: str) -> MetricInfo:
    """What a page says of that metric."""
    return get_metric(name).info


def kept_ranges(record: LayerRecord, window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """The tokens that a cut at the prompt's end keeps: sinks and recent ones, without counting any twice."""
    sink = min(window.sink, record.num_tokens)
    return (0, sink), (max(sink, record.num_tokens - window.recent), record.num_tokens)


def last_rows(record: LayerRecord, last: int) -> tuple[int, int]:
    """The prompt's last so many rows."""
    return record.num_tokens - min(last, record.num_tokens), record.num_tokens


def surviving_mass(record: LayerRecord, window: Window, last: int) -> tuple[Tensor, Tensor]:
    """Attention mass `[H, last]` of the last queries on the sinks and on the recent tokens that a cut would keep."""
    sinks, recent = kept_ranges(record, window)
    rows = last_rows(record, last)
    return record.mass(rows, sinks), record.mass(rows, recent)
