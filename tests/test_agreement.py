"""Agreement of rankings against references worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lighttransfer_core.agreement import Agreement, agreement, mean_ranks, places, spearman, stability
from lighttransfer_core.errors import InvalidInputError, UninformativeScoresError
from lighttransfer_core.types import LayerScores
from tests.viz.conftest import make_scores


def of(*values: float) -> LayerScores:
    """Scores of a made-up prompt; layer 2 cannot be converted."""
    return dataclasses.replace(make_scores(layers=len(values)), values=list(values))


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    np.testing.assert_array_equal(mean_ranks([0.3, 0.1, 0.3, 0.2, 0.3]), [4, 1, 4, 2, 4])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        # 1 - 6 * (1 + 1) / (5 * 24): the ranks differ by one in two places
        ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5], 0.9),
        # ranks 1 2.5 2.5 4 and 1 2 3 4: Pearson is 4.5 / sqrt(4.5 * 5)
        ([1, 2, 2, 3], [1, 2, 3, 4], math.sqrt(0.9)),
        # ranks 1.5 1.5 3.5 3.5 and 1.5 3.5 1.5 3.5: they say nothing of each other
        ([0, 0, 1, 1], [0, 1, 0, 1], 0.0),
    ],
)
def test_spearman_by_hand(one: list[float], other: list[float], expected: float) -> None:
    assert spearman(one, other) == pytest.approx(expected, abs=1e-12)
    assert spearman(other, one) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("one", "other"), [([1, 1, 1], [1, 2, 3]), ([1], [2]), ([], [])])
def test_where_one_side_is_all_equal_there_is_no_correlation(one: list[float], other: list[float]) -> None:
    assert math.isnan(spearman(one, other))


def test_agreement_looks_at_convertible_layers_only() -> None:
    one, other = of(0.9, 0.8, 0.0, 0.2, 0.1), of(0.8, 0.1, 1.0, 0.9, 0.2)
    # ranks of layers 0, 1, 3, 4: 4 3 2 1 and 3 1 4 2: squared differences 1 4 4 1
    assert agreement(one, other) == Agreement(pytest.approx(1 - 6 * 10 / (4 * 15)), shared=1, lazy=2)
    assert agreement(one, other).share == 0.5
    assert agreement(one, other, keep_full=1.0).share == 1.0


def test_places_are_those_of_the_ranking() -> None:
    np.testing.assert_array_equal(places(of(0.5, 0.9, 0.7, 0.5, 0.1)), [3, 1, np.nan, 2, 4])


def test_stability_over_three_prompts() -> None:
    scores = [of(0.4, 0.3, 0, 0.2, 0.1), of(0.4, 0.3, 0, 0.2, 0.1), of(0.1, 0.2, 0, 0.3, 0.4)]
    found = stability(scores)
    assert (found.low, found.high) == (pytest.approx(-1), pytest.approx(1))
    assert found.mean == pytest.approx((1 - 1 - 1) / 3)
    assert found.lazy_share == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        0,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
    )
    assert math.isnan(stability(scores[:1]).mean)


def test_rankings_of_different_layers_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="same layers"):
        agreement(of(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), of(0.1, 0.2, 0.3, 0.4, 0.5))
    one = of(0.1, 0.2, 0.3, 0.4, 0.5)
    with pytest.raises(UninformativeScoresError):
        agreement(one, dataclasses.replace(one, informative=False))
