"""How far rankings of layers agree: rank correlation, the lazy layers they share, their stability over prompts.

Plain arithmetic on scores; it knows no model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.selection import plan_from_scores, votes
from lighttransfer_core.types import Float64Array, LayerScores


@dataclass(frozen=True)
class Agreement:
    """Two rankings of the same layers.

    Attributes
    ----------
    spearman
        Rank correlation of the scores of the convertible layers, from -1 to 1; nan where one side scores all alike.
    shared, lazy
        How many layers both would convert, and how many each would.
    """

    spearman: float
    shared: int
    lazy: int

    @property
    def share(self) -> float:
        """The part of one side's lazy layers that the other has too; 1 where none is lazy."""
        return self.shared / self.lazy if self.lazy else 1.0


@dataclass(frozen=True)
class Stability:
    """One ranking per prompt of a calibration set.

    Attributes
    ----------
    mean, low, high
        Spearman's rank correlation over all pairs of prompts; nan where no pair has one.
    lazy_share
        `[L]`; the share of the prompts that would convert each layer.
    """

    mean: float
    low: float
    high: float
    lazy_share: tuple[float, ...]


def mean_ranks(values: Sequence[float] | Float64Array) -> Float64Array:
    """Rank of each value, from 1 for the smallest; equal values share the mean of their ranks."""
    _, group, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks: Float64Array = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return ranks


def spearman(one: Sequence[float] | Float64Array, other: Sequence[float] | Float64Array) -> float:
    """Spearman's rank correlation of two lists of equal length; nan where one of them has equal values only."""
    if not len(one):
        return math.nan
    first, second = (ranks - ranks.mean() for ranks in (mean_ranks(one), mean_ranks(other)))
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale else math.nan


def places(scores: LayerScores) -> Float64Array:
    """Each layer's place in the ranking, `[L]`: 1 for the laziest, nan for a layer that cannot be converted."""
    found = np.full(len(scores.values), np.nan)
    for place, layer in enumerate(scores.ranking(), start=1):
        found[layer] = place
    return found


def agreement(one: LayerScores, other: LayerScores, keep_full: float = 0.5) -> Agreement:
    """How far two rankings agree, whatever they were made with.

    Raises
    ------
    InvalidInputError
        They rank different layers.
    UninformativeScoresError
        One of them ranks nothing.
    """
    if (len(one.values), one.convertible) != (len(other.values), other.convertible):
        raise InvalidInputError(
            f"the rankings are of {len(one.convertible)} of {len(one.values)} layers and of {len(other.convertible)} "
            f"of {len(other.values)}: only rankings of the same layers can be compared."
        )
    layers = list(one.convertible)
    lazy, others = (set(plan_from_scores(scores, keep_full).lazy_layers) for scores in (one, other))
    return Agreement(spearman(one.values[layers], other.values[layers]), len(lazy & others), len(lazy))


def stability(scores: Sequence[LayerScores], keep_full: float = 0.5) -> Stability:
    """How far the rankings of several prompts agree; the scores must agree as in `aggregate_scores`."""
    counted = votes(scores, keep_full)
    pairs = [agreement(one, other, keep_full).spearman for one, other in itertools.combinations(scores, 2)]
    known = [value for value in pairs if not math.isnan(value)] or [math.nan]
    return Stability(
        mean=sum(known) / len(known),
        low=min(known),
        high=max(known),
        lazy_share=tuple(count / len(scores) for count in counted),
    )
