"""Rankings that look at no attention: what every metric must beat before it is believed.

Depth order, periodic patterns with every offset, random orders with a seed, and other metrics turned around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lighttransfer_core.laziness.metric import Measured, Metric, MetricInfo, get_metric, register
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import Window

RANDOM_SEEDS = 5
PERIODS = (2, 4)

_FREE = "nothing: the prompt is not looked at"


@dataclass(frozen=True)
class ByPlace(Metric):
    """A value that follows from the layer's place alone: `value(layer, layers)`, from 0 to 1."""

    info: MetricInfo
    value: Callable[[int, int], float]

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        layers = prefill.spec.num_layers
        return Measured(torch.tensor([self.value(layer, layers) for layer in range(layers)], dtype=torch.float64))


@dataclass(frozen=True)
class RandomOrder(Metric):
    """A random order, the same for every prompt."""

    info: MetricInfo
    seed: int

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        generator = torch.Generator().manual_seed(self.seed)
        return Measured(torch.rand(prefill.spec.num_layers, dtype=torch.float64, generator=generator))


@dataclass(frozen=True)
class Inverse(Metric):
    """Another metric turned around: it converts first what that one would keep."""

    info: MetricInfo
    of: str

    def query_rows(self, last: int) -> int | None:
        return get_metric(self.of).query_rows(last)

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        return Measured(1 - get_metric(self.of).measure(prefill, window, last).values)


def _control(name: str, title: str, formula: str, meaning: str, cost: str = _FREE) -> MetricInfo:
    return MetricInfo(name, title, formula, meaning, "control of this project", cost, "control")


def _register_periodic(period: int, offset: int) -> None:
    register(
        ByPlace(
            _control(
                f"periodic_{period}_{offset}",
                f"Every {'2nd' if period == 2 else f'{period}th'} layer full, from {offset}",
                f"0 for layers {offset}, {offset + period}, {offset + 2 * period} ..., 1 for all others",
                "The pattern that many hybrid models are built with; which offset is best differs by model.",
            ),
            lambda layer, layers: float(layer % period != offset),
        )
    )


register(
    ByPlace(
        _control("depth_early", "Early layers stream", "1 - layer / layers", "The layers next to the input go first."),
        lambda layer, layers: 1 - layer / layers,
    )
)
register(
    ByPlace(
        _control("depth_late", "Late layers stream", "layer / layers", "The layers next to the output go first."),
        lambda layer, layers: layer / layers,
    )
)
for _period in PERIODS:
    for _offset in range(_period):
        _register_periodic(_period, _offset)
for _seed in range(RANDOM_SEEDS):
    register(
        RandomOrder(
            _control(
                f"random_{_seed}",
                f"Random order, seed {_seed}",
                f"uniform random numbers with seed {_seed}",
                "What no knowledge of the model gives; several seeds make a band.",
            ),
            _seed,
        )
    )
register(
    Inverse(
        _control(
            "inverse_lazy_ratio",
            "Lazy ratio, inverse",
            "1 - lazy ratio",
            "Converts first what the paper would keep. If it does no worse, the paper's order says nothing here.",
            "the same as the lazy ratio",
        ),
        "lazy_ratio",
    )
)
