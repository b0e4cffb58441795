"""What a layer's attention output would lose: how far it moves when only the window's tokens are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
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
        full = change.full.clamp_min(torch.finfo(torch.float32).tiny)
        per_query = (1 - change.per_query / full).cpu().double()
        per_head = (1 - change.per_head / full).cpu().double()
        if self.over == "worst":
            return LayerMeasured(float(per_query.min()), per_head.amin(dim=1), per_query)
        return LayerMeasured(float(per_query.mean()), per_head.mean(dim=1), per_query)


@dataclass(frozen=True, eq=False)
class OutputChanges:
    """Lengths of vectors behind the output projection: what the last queries would lose, `per_query` `[last]` and of
    each head alone `per_head` `[H, last]`, and the layer's whole output `full` `[last]`."""

    per_query: Tensor
    per_head: Tensor
    full: Tensor


def output_changes(layer: LayerView, window: Window, last: int) -> OutputChanges:
    """What a layer's output would lose if only the window's tokens were left."""
    whole, restricted = head_outputs(layer.record, window, last)
    weight = layer.projection().to(whole.device).float().unflatten(1, (whole.shape[0], -1))
    change = torch.einsum("hqd,ohd->hqo", whole - restricted, weight)
    full = torch.einsum("hqd,ohd->qo", whole, weight).norm(dim=-1)
    return OutputChanges(change.sum(dim=0).norm(dim=-1), change.norm(dim=-1), full)


def head_outputs(record: LayerRecord, window: Window, last: int) -> tuple[Tensor, Tensor]:
    """Attention outputs `[H, last, D]` of the last queries over all tokens, and over those that a cut would keep.

    The second is renormalised, as the softmax of a streaming layer is; a learned sink stays in its denominator.
    """
    rows = last_rows(record, last)
    weights = record.log_weights(rows, (0, record.num_tokens)).exp_()
    whole = _weighted(weights, record, (0, record.num_tokens))
    restricted, mass = torch.zeros_like(whole), weights.new_zeros(*weights.shape[:2], 1)
    for columns in kept_ranges(record, window):
        if columns[0] < columns[1]:
            restricted = restricted + _weighted(weights, record, columns)
            mass = mass + weights[..., slice(*columns)].sum(dim=-1, keepdim=True)
    learned = record.learned_sink_mass(rows)
    if learned is not None:
        mass = mass + learned.unsqueeze(-1)
    return whole, restricted / mass.clamp_min(torch.finfo(mass.dtype).tiny)


def _weighted(weights: Tensor, record: LayerRecord, columns: tuple[int, int]) -> Tensor:
    """`[H, last, D]`: the values of a range of tokens under their weights."""
    value = record.value[:, slice(*columns)].float()
    grouped = weights[..., slice(*columns)].unflatten(0, (value.shape[0], -1))
    sums: Tensor = (grouped @ value.unsqueeze(1)).flatten(0, 1)
    return sums


register(
    OutputChange(
        MetricInfo(
            name="output_change",
            title="Output change",
            formula=_FORMULA.format(over="averaged over"),
            meaning="How much of what the layer adds to the model's state would stay, on average over the last tokens.",
            source="this project; the quantity that layer-wise cache methods try to keep small",
            cost="one pass over the prompt's values per layer for the last queries",
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
