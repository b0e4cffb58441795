"""From scores to a choice of layers: by one prompt's scores, by their mean over several prompts, or by votes.

Plain data in and out; it knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.layer_sets import layers_kept_full
from lighttransfer_core.types import ConversionPlan, Float64Array, LayerScores

RECOMMENDED_METRIC: Final = "echo"
"""The metric we stand behind: of those made from one prompt without its answer, the best on held-out prompts. The
paper's own is "lazy_ratio"."""


def plan_from_scores(scores: LayerScores, keep_full: float = 0.5) -> ConversionPlan:
    """Converts the laziest layers, so that round-half-up(`keep_full` * n) of the n convertible layers stay full.

    Raises
    ------
    UninformativeScoresError
        Every layer scores alike, because the prompt fits the window.
    InvalidInputError
        `keep_full` is not a share.
    """
    ranking = scores.ranking()
    return _laziest(ranking, scores, keep_full)


def plan_from_threshold(scores: LayerScores, threshold: float) -> ConversionPlan:
    """Converts every layer that scores over a threshold, however many that are.

    The rule of SimLayerKV, the paper's first version, with the score "simlayer"; `simlayer.THRESHOLDS` are its values.

    Raises
    ------
    UninformativeScoresError
        Every layer scores alike, because the prompt fits the window.
    InvalidInputError
        `threshold` is no number.
    """
    if not isinstance(threshold, int | float) or threshold != threshold:
        raise InvalidInputError(f"threshold={threshold!r} is not a score: give a number.")
    return ConversionPlan(
        tuple(layer for layer in scores.ranking() if scores.values[layer] > threshold), scores.window, scores.model
    )


def votes(scores: Sequence[LayerScores], keep_full: float = 0.5) -> tuple[int, ...]:
    """How many of the prompts convert each layer, `[L]`, where each converts its own laziest.

    The scores must agree as in `aggregate_scores`. Source: LightTransfer (arXiv 2410.13846), whose training variant
    counts how often a layer is among the lazy ones of a training sample.
    """
    _check_alike(scores)
    chosen = [plan_from_scores(one, keep_full).lazy_layers for one in scores]
    return tuple(sum(layer in lazy for lazy in chosen) for layer in range(len(scores[0].values)))


def plan_from_votes(scores: Sequence[LayerScores], keep_full: float = 0.5) -> ConversionPlan:
    """Converts the layers that most prompts convert; of equal ones the lazier by the mean score, then the higher index.

    As many as `plan_from_scores` converts.
    """
    counted, mean = votes(scores, keep_full), aggregate_scores(scores)
    ranking = sorted(mean.convertible, key=lambda layer: (counted[layer], mean.values[layer], layer), reverse=True)
    return _laziest(ranking, mean, keep_full)


def aggregate_scores(scores: Sequence[LayerScores]) -> LayerScores:
    """One static ranking over a calibration set: the mean of the prompts' scores.

    The scores must agree in model, metric, window and number of last queries, and each must be informative.
    """
    _check_alike(scores)
    first = scores[0]

    def mean(name: str) -> Float64Array:
        averaged: Float64Array = np.mean([getattr(s, name) for s in scores], axis=0)
        return averaged

    def mean_part(name: str) -> Float64Array | None:
        return mean(name) if all(getattr(s, name) is not None for s in scores) else None

    return LayerScores(
        metric=first.metric,
        window=first.window,
        last=first.last,
        num_tokens=sum(s.num_tokens for s in scores),
        values=mean("values"),
        sink=mean("sink"),
        recent=mean("recent"),
        rest=mean("rest"),
        per_head=mean_part("per_head"),
        per_query=mean_part("per_query"),
        convertible=first.convertible,
        informative=True,
        learned_sink=mean_part("learned_sink"),
        num_prompts=sum(s.num_prompts for s in scores),
        model=first.model,
    )


def _laziest(ranking: Sequence[int], scores: LayerScores, keep_full: float) -> ConversionPlan:
    kept = layers_kept_full(keep_full, len(ranking))
    return ConversionPlan(tuple(ranking[: len(ranking) - kept]), scores.window, scores.model)


def _check_alike(scores: Sequence[LayerScores]) -> None:
    if not scores:
        raise InvalidInputError("there are no scores to aggregate: give at least one prompt's.")
    for other in scores:
        other.ranking()
        asked, expected = ((s.metric, s.window, s.last, s.model, s.convertible) for s in (other, scores[0]))
        if asked != expected:
            raise InvalidInputError(f"scores of different questions cannot be averaged: {asked} beside {expected}.")
