"""Two witnesses against a layer: how far its most far-sighted head looks, and how far the model's state would move.

Either alone errs. A head may look far and find nothing that matters; a change of the state may be large and yet be made
of what the window holds as well. The worst cases of both, over heads and queries, are divided by each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from lighttransfer_core.laziness.metric import (
    LayerMeasured,
    LayerMetric,
    LayerView,
    MetricInfo,
    register,
)
from lighttransfer_core.laziness.output_change import output_changes
from lighttransfer_core.laziness.residual_change import residual_norms
from lighttransfer_core.types import Window

FLOOR: Final = 0.03
"""Added to the mass, so that a head which sees nothing does not decide alone: where masses are far below it, the change
of the state orders the layers."""


@dataclass(frozen=True)
class ReachEffect(LayerMetric):
    """Worst head's mass, against the worst query's change of the residual stream. 1: nothing is lost."""

    info = MetricInfo(
        name="reach_effect",
        title="Reach and effect",
        formula=f"(m + {FLOOR}) / (m + {FLOOR} + r); m is the least softmax mass that any head of any last query puts "
        "on the first `sink` and last `recent` tokens; r the largest |W_o (o - o')| / |h| of any last query: what the "
        "layer's output loses without the other tokens, against the residual stream that it is added to",
        meaning="How much its most far-sighted head still sees, weighed against how far the model’s state would move. "
        "A layer streams only where neither speaks against it.",
        source="this project; chosen on prompts apart from those that it is reported on",
        cost="the window’s keys and values per layer for the last queries; in half precision all of the prompt’s",
    )

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        seen = witnesses(layer, window, last, self.info.name)
        return LayerMeasured(
            float(weighed(seen.mass.amin(), seen.change.amax())),
            weighed(seen.mass.amin(dim=1), seen.head_change.amax(dim=1)),
            weighed(seen.mass.amin(dim=0), seen.change),
        )


@dataclass(frozen=True, eq=False)
class Witnesses:
    """What the last queries say of a layer, float64 on the host: the `mass` `[H, last]` that stays, the relative
    `change` `[last]` of the residual stream, and what each head adds to it alone, `head_change` `[H, last]`."""

    mass: Tensor
    change: Tensor
    head_change: Tensor


def witnesses(layer: LayerView, window: Window, last: int, metric: str) -> Witnesses:
    """Of a layer's last queries. Raises PrefillMismatchError where the residual stream could not be seen."""
    found = output_changes(layer, window, last)
    stream = residual_norms(layer.record, metric, found.per_query.shape[0])
    parts = (found.mass, found.per_query / stream, found.per_head / stream)
    return Witnesses(*(part.cpu().double() for part in parts))


def weighed(mass: Tensor, change: Tensor) -> Tensor:
    """The score."""
    return (mass + FLOOR) / (mass + FLOOR + change.clamp_min(0.0))


register(ReachEffect())
