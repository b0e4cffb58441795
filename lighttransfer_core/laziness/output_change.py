"""What a layer's attention output would lose: how far it moves when only the window's tokens are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lighttransfer_core.laziness.metric import (
    LayerMeasured,
    LayerMetric,
    LayerView,
    MetricInfo,
    kept_ranges,
    last_rows,
    register,
)
from lighttransfer_core.types import Window

_FORMULA = (
    "1 - |W_o (o - o')| / |W_o o|, {over} the last queries; o is the attention output of a query over all tokens, "
    "o' over the first `sink` and last `recent` ones, W_o the layer's output projection"
)


_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class OutputChange(LayerMetric):
    """One minus the relative change of the layer's output. 1: nothing is lost.

    Parameters
    ----------
    over
        Whether the last queries are averaged, or the one that loses most counts.
    """

    info: MetricInfo
    over: Literal["mean", "worst"]

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        change = output_changes(layer, window, last)
        full = _projected(change.whole, layer).norm(dim=-1).clamp_min(_TINY)
        per_query = (1 - change.per_query / full).cpu().double()
        per_head = (1 - change.per_head / full).cpu().double()
        if self.over == "worst":
            return LayerMeasured(float(per_query.min()), per_head.amin(dim=1), per_query)
        return LayerMeasured(float(per_query.mean()), per_head.mean(dim=1), per_query)


@dataclass(frozen=True, eq=False)
class OutputChanges:
    """Lengths of vectors behind the output projection: what the last queries would lose, `per_query` `[last]` and of
    each head alone `per_head` `[H, last]`; the attention `mass` `[H, last]` that stays, and the heads' outputs over all
    tokens, `whole` `[H, last, D]`."""

    per_query: Tensor
    per_head: Tensor
    mass: Tensor
    whole: Tensor


def output_changes(layer: LayerView, window: Window, last: int) -> OutputChanges:
    """What a layer's output would lose if only the window's tokens were left.

    What is left is renormalised, as the softmax of a streaming layer is; a learned sink stays in its denominator.
    """
    record, rows = layer.record, last_rows(layer.record, last)
    sinks, recent = kept_ranges(record, window)
    seen, mass = record.outputs(rows, [sinks, recent])
    if layer.output is None or layer.output.shape[1] < seen.shape[1]:
        whole = seen + record.outputs(rows, [(sinks[1], recent[0])])[0]
    else:
        whole = layer.output[:, -seen.shape[1] :].to(seen)
    learned = record.learned_sink_mass(rows)
    left = mass if learned is None else mass + learned
    restricted = seen / left.clamp_min(_TINY).unsqueeze(-1)
    weight = layer.projection().to(whole.device).float().unflatten(1, (whole.shape[0], -1))
    change = torch.einsum("hqd,ohd->hqo", whole - restricted, weight)
    return OutputChanges(change.sum(dim=0).norm(dim=-1), change.norm(dim=-1), mass, whole)


def _projected(heads: Tensor, layer: LayerView) -> Tensor:
    """What heads' outputs `[H, rows, D]` become behind the output projection, `[rows, hidden]`."""
    weight = layer.projection().to(heads.device).float()
    return heads.transpose(0, 1).flatten(1) @ weight.t()


register(
    OutputChange(
        MetricInfo(
            name="output_change",
            title="Output change",
            formula=_FORMULA.format(over="averaged over"),
            meaning="How much of what the layer adds to the model's state would stay, on average over the last tokens.",
            source="this project; the quantity that layer-wise cache methods try to keep small",
            cost="the window’s keys and values per layer for the last queries; in half precision all of the prompt’s",
        ),
        "mean",
    )
)
register(
    OutputChange(
        MetricInfo(
            name="output_change_worst",
            title="Output change, worst query",
            formula=_FORMULA.format(over="the lowest of"),
            meaning="The same for the one token that would lose most: a single retrieving query keeps the layer.",
            source="this project",
            cost="the same as output change",
        ),
        "worst",
    )
)
