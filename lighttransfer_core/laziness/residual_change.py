"""How far the model's state would move: what a layer's output loses, against the residual stream that it is added to.

Attention mass says where a layer looks, not whether it matters. A head that retrieves from far away moves the state a
lot; a layer whose far attention gathers little, or whose output is small beside the stream, may stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import PrefillMismatchError
from lighttransfer_core.laziness.metric import LayerMeasured, LayerMetric, LayerView, MetricInfo, register
from lighttransfer_core.laziness.output_change import output_changes
from lighttransfer_core.types import Window

_FORMULA = (
    "1 - |W_o (o - o')| / |h|, {over} the last queries; o is the attention output of a query over all tokens, o' over "
    "the first `sink` and last `recent` ones, W_o the layer's output projection, h the residual stream that enters it"
)


@dataclass(frozen=True)
class ResidualChange(LayerMetric):
    """One minus the change of the model's state, relative to its length. 1: nothing is lost.

    In models that normalise the attention's output before they add it, the change is taken before that norm.

    Parameters
    ----------
    over
        Whether the last queries are averaged, or the one that loses most counts.
    """

    info: MetricInfo
    over: Literal["mean", "worst"]

    def of_layer(self, layer: LayerView, window: Window, last: int) -> LayerMeasured:
        change = output_changes(layer, window, last)
        stream = residual_norms(layer.record, self.info.name, change.per_query.shape[0])
        per_query = (1 - change.per_query / stream).cpu().double()
        per_head = (1 - change.per_head / stream).cpu().double()
        if self.over == "worst":
            return LayerMeasured(float(per_query.min()), per_head.amin(dim=1), per_query)
        return LayerMeasured(float(per_query.mean()), per_head.mean(dim=1), per_query)


def residual_norms(record: LayerRecord, metric: str, last: int) -> Tensor:
    """Length `[last]` of the residual stream's vectors as the last queries entered the layer; above 0.

    Raises
    ------
    PrefillMismatchError
        The stream could not be seen in this model.
    """
    if record.residual_norm is None:
        raise PrefillMismatchError(
            f"{metric} needs the residual stream, which could not be seen in this model: choose a metric of attention "
            "mass, such as worst_head."
        )
    stream = record.residual_norm[-last:].to(record.key.device)
    return stream.clamp_min(torch.finfo(torch.float32).tiny)


register(
    ResidualChange(
        MetricInfo(
            name="residual_change",
            title="Residual change",
            formula=_FORMULA.format(over="averaged over"),
            meaning="How much of the model's state would stay as it is, on average over the last tokens.",
            source="this project",
            cost="the window’s keys and values per layer for the last queries; in half precision all of the prompt’s",
        ),
        "mean",
    )
)
register(
    ResidualChange(
        MetricInfo(
            name="residual_change_worst",
            title="Residual change, worst query",
            formula=_FORMULA.format(over="the lowest of"),
            meaning="The same for the token whose state would move most: a single retrieving query keeps a layer.",
            source="this project",
            cost="the same as residual change",
        ),
        "worst",
    )
)
