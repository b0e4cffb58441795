"""Two witnesses against a layer: how far its most far-sighted head looks, and how far the model's state would move.

Either alone errs. A head may look far and find nothing that matters; a change of the state may be large and yet be made
of what the window holds as well. The worst cases of both, over heads and queries, are divided by each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
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
        cost="one pass over the prompt's values per layer for the last queries",
    )

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        change = output_changes(layer, window, last)
        stream = residual_norms(layer.record, self.info.name, change.per_query.shape[0])
        mass = change.mass
        per_query, per_head = change.per_query / stream, change.per_head / stream
        return LayerMeasured(
            float(_score(mass.amin(), per_query.amax())),
            _score(mass.amin(dim=1), per_head.amax(dim=1)),
            _score(mass.amin(dim=0), per_query),
        )


def _score(mass: Tensor, change: Tensor) -> Tensor:
    """Float64, on the host."""
    seen = mass.cpu().double() + FLOOR
    return seen / (seen + torch.clamp_min(change.cpu().double(), 0.0))


register(ReachEffect())
