"""One static ranking from many prompts: a metric's mean over a calibration set.

Serving engines want a set of layers that is known before the prompt is; a calibrated ranking is also what a ranking
per prompt has to be held against.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from lighttransfer_core.frontier.asking import prepared_steps
from lighttransfer_core.frontier.kept_scores import Values
from lighttransfer_core.frontier.orders import CALIBRATED, StaticOrder
from lighttransfer_core.frontier.spec import ExampleKey, SweepSpec
from lighttransfer_core.laziness.metric import get_metric
from lighttransfer_core.laziness.trials import AnswerMetric
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.steps import retold
from lighttransfer_core.types import Float64Array, Window


@dataclass(frozen=True)
class CalibrationProgress:
    """How far a calibration has come; `scored` where a prompt has just been scored."""

    done: int
    total: int
    doing: str
    scored: tuple[ExampleKey, Values] | None = None


def calibration_steps(
    lm: LoadedModel,
    spec: SweepSpec,
    metric: str,
    name: str | None = None,
    done: Mapping[ExampleKey, Values] = MappingProxyType({}),
) -> Generator[CalibrationProgress, None, list[StaticOrder]]:
    """The metric's mean over every example of a spec, as one ranking per window.

    A metric that lets plans read an answer reads the reference's.

    Parameters
    ----------
    name
        What the ranking is called after `CALIBRATED`; None: as its metric.
    done
        Scores of before, which are taken as they are.
    """
    keys, found = spec.keys, list[Values]()
    for number, key in enumerate(keys):
        values = done.get(key)
        if values is None:
            scoring = _scored_steps(lm, spec, metric, key)
            values = yield from retold(scoring, partial(CalibrationProgress, number, len(keys)))
            yield CalibrationProgress(number + 1, len(keys), key.text, (key, values))
        found.append(values)
    made = (
        f"mean {metric} over {spec.examples} prompts each of {', '.join(spec.tasks)}, seeds from {spec.first_seed}, "
        f"{', '.join(map(str, spec.lengths))} tokens, question-{' and -'.join(spec.questions)}"
    )
    means = {window: np.mean([values[window] for values in found], axis=0) for window in spec.windows}
    layers = lm.spec.convertible_layers
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


def _scored_steps(lm: LoadedModel, spec: SweepSpec, metric: str, key: ExampleKey) -> Generator[str, None, Values]:
    """One prompt's scores, by window."""
    chosen, values = get_metric(metric), dict[Window, Float64Array]()
    asked = yield from prepared_steps(lm, key, spec.rendering, chosen.query_rows(spec.last))
    for window in spec.windows:
        yield f"{key.text}: {metric}"
        if isinstance(chosen, AnswerMetric):
            measured = chosen.given(asked.prefill, window, asked.reference, asked.question)
        else:
            measuring = chosen.measure_steps(asked.prefill, window, spec.last)
            measured = yield from retold(measuring, partial("{}: {}, {}".format, key.text, metric))
        values[window] = measured.values.numpy()
    return values
