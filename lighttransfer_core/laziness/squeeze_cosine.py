"""SqueezeAttention's measure: a layer whose attention hardly turns the residual stream gets the smaller cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lighttransfer_core.errors import PrefillMismatchError
from lighttransfer_core.laziness.metric import Measured, Metric, MetricInfo, register
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import Window


@dataclass(frozen=True)
class SqueezeCosine(Metric):
    """Mean cosine, over the prompt's tokens, between the residual stream before and after attention is added.

    SqueezeAttention (arXiv 2404.04793), section 3. It knows neither window nor question. In models that normalise the
    attention's output before they add it, the cosine is taken before that norm.
    """

    info = MetricInfo(
        name="squeeze_cosine",
        title="SqueezeAttention’s cosine",
        formula="mean over the prompt’s tokens of cos(h, h + a); h is the residual stream that enters the layer, a "
        "what its attention adds",
        meaning="How little a layer’s attention turns the model’s state. It looks at no window and at no question.",
        source="SqueezeAttention, arXiv 2404.04793",
        cost="one cosine per token while the prompt passes",
    )

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        cosines = [record.residual_cosine for record in prefill.records]
        seen = [one.cpu().double() for one in cosines if one is not None]
        if len(seen) < len(cosines):
            raise PrefillMismatchError(
                f"{self.info.name} needs the residual stream, which could not be seen in this model: choose a metric "
                "of attention mass."
            )
        return Measured(torch.stack([one.mean() for one in seen]), per_query=torch.stack([one[-last:] for one in seen]))


register(SqueezeCosine())
