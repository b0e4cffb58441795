"""One static ranking from many prompts: a metric's mean over a calibration set.

Serving engines want a set of layers that is known before the prompt is; a calibrated ranking is also what a ranking
per prompt has to be held against.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import numpy as np

from lighttransfer_core.frontier.asking import prepared_steps
from lighttransfer_core.frontier.orders import CALIBRATED, StaticOrder
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.frontier.sweep import SweepProgress
from lighttransfer_core.laziness.metric import get_metric
from lighttransfer_core.laziness.trials import AnswerMetric
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.steps import retold
from lighttransfer_core.types import Float64Array, Window


def calibration_steps(
    lm: LoadedModel, spec: SweepSpec, metric: str, name: str | None = None
) -> Generator[SweepProgress, None, list[StaticOrder]]:
    """The metric's mean over every example of a spec, as one ranking per window.

    A metric that lets plans read an answer reads the reference's.

    Parameters
    ----------
    name
        What the ranking is called after `CALIBRATED`; None: as its metric.
    """
    chosen, keys = get_metric(metric), spec.keys
    values: dict[Window, list[Float64Array]] = {window: [] for window in spec.windows}
    for number, key in enumerate(keys):
        asked = yield from retold(
            prepared_steps(lm, key, spec.rendering, chosen.query_rows(spec.last)),
            partial(SweepProgress, number, len(keys)),
        )
        for window in spec.windows:
            yield SweepProgress(number, len(keys), f"{key.text}: {metric}")
            if isinstance(chosen, AnswerMetric):
                found = chosen.given(asked.prefill, window, asked.reference, asked.question)
            else:
                measuring = chosen.measure_steps(asked.prefill, window, spec.last)
                in_words = retold(measuring, partial("{}: {}, {}".format, key.text, metric))
                found = yield from retold(in_words, partial(SweepProgress, number, len(keys)))
            values[window].append(found.values.numpy())
    made = (
        f"mean {metric} over {spec.examples} prompts each of {', '.join(spec.tasks)}, seeds from {spec.first_seed}, "
        f"{', '.join(map(str, spec.lengths))} tokens, question-{' and -'.join(spec.questions)}"
    )
    layers = lm.spec.convertible_layers
    means = {window: np.mean(found, axis=0) for window, found in values.items()}
    return [
        StaticOrder(
            f"{CALIBRATED}{name or metric}",
            window,
            tuple(sorted(layers, key=lambda i: (mean[i], i), reverse=True)),
            made,
            model=lm.spec.identity,
        )
        for window, mean in means.items()
    ]
