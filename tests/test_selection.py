"""Plans from one prompt's scores, from means and from votes."""

from __future__ import annotations

import dataclasses

import pytest

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError, UninformativeScoresError
from lighttransfer_core.types import LayerScores, Window
from tests.viz.conftest import make_scores


def of(*values: float) -> LayerScores:
    """Scores of a made-up prompt of five layers, of which layer 2 cannot be converted."""
    return dataclasses.replace(make_scores(layers=5), values=list(values))


def test_votes_count_how_often_a_layer_is_among_a_prompt_s_laziest() -> None:
    scores = [of(0.9, 0.8, 1.0, 0.1, 0.2), of(0.9, 0.1, 1.0, 0.8, 0.2), of(0.2, 0.1, 1.0, 0.9, 0.8)]
    assert lt.votes(scores) == (2, 1, 0, 2, 1)
    assert lt.votes(scores, keep_full=1.0) == (0, 0, 0, 0, 0)
    assert lt.votes(scores, keep_full=0.0) == (3, 3, 0, 3, 3)


def test_votes_and_means_can_choose_different_layers() -> None:
    """Layer 0 wins by one prompt alone in the mean, layer 4 by two of three in votes."""
    scores = [of(0.99, 0.9, 0, 0.1, 0.0), of(0.0, 0.9, 0, 0.1, 0.2), of(0.0, 0.9, 0, 0.1, 0.2)]
    assert lt.plan_from_scores(lt.aggregate_scores(scores)).lazy_layers == (0, 1)
    plan = lt.plan_from_votes(scores)
    assert plan.lazy_layers == (1, 4)
    assert (plan.window, plan.model) == (scores[0].window, scores[0].model)


def test_equal_votes_go_to_the_lazier_mean_and_then_to_the_higher_index() -> None:
    scores = [of(0.9, 0.8, 0, 0.1, 0.2), of(0.1, 0.2, 0, 0.8, 0.9)]
    assert lt.votes(scores) == (1, 1, 0, 1, 1)
    assert lt.plan_from_votes(scores).lazy_layers == (1, 4), "0.5 each; of 0, 1, 3 and 4 the means are 0.5 or 0.55"
    alike = [of(0.9, 0.9, 0, 0.1, 0.1), of(0.1, 0.1, 0, 0.9, 0.9)]
    assert lt.plan_from_votes(alike).lazy_layers == (3, 4)


def test_prompts_that_were_asked_differently_cannot_vote_together() -> None:
    one = of(0.9, 0.8, 0, 0.1, 0.2)
    with pytest.raises(InvalidInputError, match="different questions"):
        lt.votes([one, dataclasses.replace(one, window=Window(1, 9))])
    with pytest.raises(InvalidInputError, match="at least one"):
        lt.plan_from_votes([])
    with pytest.raises(UninformativeScoresError):
        lt.votes([one, dataclasses.replace(one, informative=False)])
