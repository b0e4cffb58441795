"""From a prefill to the scores of its layers, from scores to a plan, and from several prompts to one ranking."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import InvalidInputError, InvalidWindowError, PrefillMismatchError, ShortPromptWarning
from lighttransfer_core.layer_sets import layers_kept_full
from lighttransfer_core.laziness.metric import get_metric, surviving_mass
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import ConversionPlan, Float64Array, LayerScores, Window, is_integer

RECOMMENDED_METRIC = "lazy_ratio"
"""The metric we stand behind. The paper's, until held-out evidence says otherwise."""


@torch.no_grad()
def score_layers(
    prefill: Prefill, window: Window | None = None, last: int = 32, metric: str = RECOMMENDED_METRIC
) -> LayerScores:
    """Scores every layer's laziness on one prompt.

    Parameters
    ----------
    window
        What a cut layer would keep; the paper's 4 and 1020 tokens by default.
    last
        How many of the prompt's last queries are asked.

    Warns
    -----
    ShortPromptWarning
        The prompt is no longer than the window, so the scores say nothing and will not be ranked.

    Raises
    ------
    UnknownMetricError, InvalidInputError
    PrefillMismatchError
        The prefill did not keep the queries that the metric needs.
    """
    window = Window() if window is None else window
    check_question(window, last)
    chosen = get_metric(metric)
    last = min(last, prefill.num_tokens)
    needed, kept = chosen.query_rows(last) or prefill.num_tokens, prefill.keep.rows_of(prefill.num_tokens)
    if needed > kept:
        raise PrefillMismatchError(
            f"{metric} reads the queries of {needed} rows and this prefill kept {kept}: run it with "
            f"keep=Keep(query_rows={needed})."
        )
    informative = prefill.num_tokens > window.size
    if not informative:
        warn_short_prompt(prefill.num_tokens, window)
    measured = chosen.measure(prefill, window, last)
    shares = [_shares(record, window, last) for record in prefill.records]
    sink, recent, learned = (np.array(column, dtype=np.float64) for column in zip(*shares, strict=True))
    has_learned = any(record.learned_sink is not None for record in prefill.records)
    return LayerScores(
        metric=metric,
        window=window,
        last=last,
        num_tokens=prefill.num_tokens,
        values=measured.values.numpy(),
        sink=sink,
        recent=recent,
        rest=1.0 - sink - recent - learned,
        per_head=None if measured.per_head is None else measured.per_head.numpy(),
        per_query=None if measured.per_query is None else measured.per_query.numpy(),
        convertible=prefill.spec.convertible_layers,
        informative=informative,
        learned_sink=learned if has_learned else None,
        model=prefill.spec.identity,
    )


def check_question(window: Window, last: int) -> None:
    """Refuses what is no window, or no number of last queries."""
    if not isinstance(window, Window):
        raise InvalidWindowError(f"{window!r} is not a window: give Window(sink=4, recent=1020), say.")
    if not is_integer(last) or last < 1:
        raise InvalidInputError(f"last={last!r} is not a number of queries: give an integer of at least 1.")


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
    kept = layers_kept_full(keep_full, len(ranking))
    return ConversionPlan(tuple(ranking[: len(ranking) - kept]), scores.window, scores.model)


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


def aggregate_scores(scores: Sequence[LayerScores]) -> LayerScores:
    """One static ranking over a calibration set: the mean of the prompts' scores.

    The scores must agree in model, metric, window and number of last queries, and each must be informative.
    """
    if not scores:
        raise InvalidInputError("there are no scores to aggregate: give at least one prompt's.")
    first = scores[0]
    for other in scores:
        other.ranking()
        asked, expected = ((s.metric, s.window, s.last, s.model, s.convertible) for s in (other, first))
        if asked != expected:
            raise InvalidInputError(f"scores of different questions cannot be averaged: {asked} beside {expected}.")

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


def warn_short_prompt(num_tokens: int, window: Window) -> None:
    warnings.warn(
        f"the prompt has {num_tokens} tokens and the window keeps {window.size}, so every layer scores alike: use a "
        "longer prompt or a smaller window.",
        ShortPromptWarning,
        stacklevel=3,
    )


def _shares(record: LayerRecord, window: Window, last: int) -> tuple[float, float, float]:
    """Mean mass on sinks, recent tokens and a learned sink."""
    sink, recent = surviving_mass(record, window, last)
    learned = record.learned_sink_mass((record.num_tokens - sink.shape[1], record.num_tokens))
    return float(sink.mean()), float(recent.mean()), 0.0 if learned is None else float(learned.mean())
