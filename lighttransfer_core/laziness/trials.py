"""Rankings found by trying: convert layers, let the model read a text, and see what is lost.

The costly truth that cheap metrics are held against. All trials of a round are one batch over the shared prompt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lighttransfer_core.branches import Forced, decode_plans, force_plans
from lighttransfer_core.laziness.metric import Measured, Metric, MetricInfo, register
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import ConversionPlan, Float64Array, Window

ANSWER_TOKENS = 24
"""Tokens of the model's own answer that are read where no answer is given."""

Loss = Literal["kl", "nll"]


class AnswerMetric(Metric):
    """A metric that lets plans read an answer: one that is given, or the beginning of the full model's own."""

    @abstractmethod
    def given(self, prefill: Prefill, window: Window, answer: Sequence[int], question: Sequence[int] = ()) -> Measured:
        """By an answer's token ids, after the token ids of a question that is not in the prompt."""

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        return self.given(prefill, window, own_answer(prefill))


@dataclass(frozen=True)
class LeaveOneOut(AnswerMetric):
    """What is lost when only this layer streams, with the sign turned: higher is lazier."""

    info: MetricInfo
    loss: Loss

    def given(self, prefill: Prefill, window: Window, answer: Sequence[int], question: Sequence[int] = ()) -> Measured:
        layers = range(prefill.spec.num_layers)
        values = np.zeros(len(layers))
        tried = list(prefill.spec.convertible_layers)
        plans = [None, *(ConversionPlan((layer,), window) for layer in tried)]
        lost = loss_of(force_plans(prefill, plans, answer, question), self.loss)
        values[tried] = lost[0] - lost[1:]
        return Measured(torch.from_numpy(values))


@dataclass(frozen=True)
class Greedy(AnswerMetric):
    """Forward selection: convert the layer that costs least, then the one that costs least beside it, and so on."""

    info: MetricInfo

    def given(self, prefill: Prefill, window: Window, answer: Sequence[int], question: Sequence[int] = ()) -> Measured:
        count = prefill.spec.num_layers
        values = torch.zeros(count, dtype=torch.float64)
        chosen: list[int] = []
        left = list(prefill.spec.convertible_layers)
        while left:
            plans = [ConversionPlan((*chosen, layer), window) for layer in left]
            lost = loss_of(force_plans(prefill, plans, answer, question), "kl")
            best = min(range(len(left)), key=lambda index: (lost[index], -left[index]))
            layer = left.pop(best)
            values[layer] = 1 - len(chosen) / count
            chosen.append(layer)
        return Measured(values)


def own_answer(prefill: Prefill) -> list[int]:
    """The beginning of the full model's own greedy answer; at least its first token, which may be the one that ends."""
    return decode_plans(prefill, [None], ANSWER_TOKENS)[0] or [int(prefill.logits.argmax())]


def loss_of(forced: Forced, loss: Loss) -> Float64Array:
    """Mean loss of each plan over the text, `[B]`."""
    mean: Float64Array = (forced.kl if loss == "kl" else forced.nll).mean(axis=1)
    return mean


register(
    LeaveOneOut(
        MetricInfo(
            name="leave_one_out_kl",
            title="Leave one out, KL",
            formula="minus the mean KL(full model || only this layer streams) over the model's own answer",
            meaning="What converting this layer alone does to the answer's distributions, tried out.",
            source="this project",
            cost="one answer, and one batch with a row for every layer that reads it",
            kind="trial",
        ),
        "kl",
    )
)
register(
    LeaveOneOut(
        MetricInfo(
            name="leave_one_out_nll",
            title="Leave one out, NLL of the answer",
            formula="minus the rise of the answer tokens' mean negative log-likelihood when only this layer streams",
            meaning="What converting this layer alone does to the answer itself; a sweep reads the reference answer.",
            source="NLL-guided selection, arXiv 2606.27791",
            cost="one batch with a row for every layer that reads the answer",
            kind="trial",
        ),
        "nll",
    )
)
register(
    Greedy(
        MetricInfo(
            name="greedy_kl",
            title="Greedy forward selection, KL",
            formula="the order in which layers are converted when each time the one with the least mean KL is taken",
            meaning="Leave one out looks at layers one by one; this sees what they lose together.",
            source="forward selection, as in placement searches (arXiv 2508.15884)",
            cost="as many batches as there are layers",
            kind="trial",
        )
    )
)
