"""From a prefill to the scores of its layers."""

from __future__ import annotations

import warnings
from collections.abc import Generator

import numpy as np
import torch

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import InvalidInputError, InvalidWindowError, PrefillMismatchError, ShortPromptWarning
from lighttransfer_core.laziness.beginning import beginning, check_beginning
from lighttransfer_core.laziness.metric import get_metric, surviving_mass
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.selection import RECOMMENDED_METRIC
from lighttransfer_core.steps import finished
from lighttransfer_core.types import LayerScores, Window, is_integer


def score_layers(
    prefill: Prefill,
    window: Window | None = None,
    last: int = 32,
    metric: str = RECOMMENDED_METRIC,
    tokens: int | None = None,
) -> LayerScores:
    """Scores every layer's laziness on one prompt.

    Parameters
    ----------
    window
        What a cut layer would keep; the paper's 4 and 1020 tokens by default.
    last
        How many of the prompt's last queries are asked.
    tokens
        Score the prompt's first so many tokens, as though it ended there; None: all of it.

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
    scores = layer_scores(prefill, window, last, metric, tokens)
    if not scores.informative:
        warn_short_prompt(scores.num_tokens, window)
    return scores


def layer_scores(prefill: Prefill, window: Window, last: int, metric: str, tokens: int | None = None) -> LayerScores:
    """`score_layers` without its warning, for those who look at `informative` themselves."""
    return finished(layer_scores_steps(prefill, window, last, metric, tokens))


@torch.no_grad()
def layer_scores_steps(
    prefill: Prefill, window: Window, last: int, metric: str, tokens: int | None = None
) -> Generator[str, None, LayerScores]:
    """`layer_scores` in short turns, each told in words."""
    check_question(window, last)
    chosen = get_metric(metric)
    end = prefill.num_tokens if tokens is None else tokens
    if tokens is not None:
        check_beginning(prefill, tokens, chosen)
    last = min(last, end)
    needed = prefill.num_tokens - end + (chosen.query_rows(last) or end)
    kept = prefill.keep.rows_of(prefill.num_tokens)
    if needed > kept:
        raise PrefillMismatchError(
            f"{metric} reads the queries of {needed} rows and this prefill kept {kept}: run it with "
            f"keep=Keep(query_rows={needed})."
        )
    prefill = beginning(prefill, end)
    measured = yield from chosen.measure_steps(prefill, window, last)
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
        informative=prefill.num_tokens > window.size,
        learned_sink=learned if has_learned else None,
        model=prefill.spec.identity,
    )


def check_question(window: Window, last: int) -> None:
    """Refuses what is no window, or no number of last queries."""
    if not isinstance(window, Window):
        raise InvalidWindowError(f"{window!r} is not a window: give Window(sink=4, recent=1020), say.")
    if not is_integer(last) or last < 1:
        raise InvalidInputError(f"last={last!r} is not a number of queries: give an integer of at least 1.")


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
