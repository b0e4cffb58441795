"""Scores of a prompt's beginning, out of the whole prompt's prefill, against a prefill of the beginning alone."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError, PrefillMismatchError, ShortPromptWarning
from lighttransfer_core.keep import Keep
from lighttransfer_core.types import Window
from tests.conftest import make_tiny, tokens

WINDOW = Window(3, 8)


@pytest.mark.parametrize("name", [name for kind in ("prompt", "probe", "control") for name in lt.list_metrics(kind)])
def test_a_beginning_scores_as_a_prompt_of_its_own(name: str, architecture: str) -> None:
    model, ids = make_tiny(architecture), tokens(50)
    asked = {"window": WINDOW, "last": 6, "metric": name}
    alone = lt.score_layers(lt.run_prefill(model, ids[:, :41]), **asked)
    inside = lt.score_layers(lt.run_prefill(model, ids), **asked, tokens=41)
    assert (inside.num_tokens, inside.ranking()) == (41, alone.ranking())
    for part in ("values", "sink", "recent", "rest", "per_head", "per_query"):
        if getattr(alone, part) is not None:
            np.testing.assert_allclose(getattr(inside, part), getattr(alone, part), atol=1e-5)


def test_the_queries_between_the_beginning_and_the_end_must_be_kept_too(llama: PreTrainedModel) -> None:
    enough, few = (lt.run_prefill(llama, tokens(50), keep=Keep(query_rows=rows)) for rows in (15, 14))
    whole = lt.run_prefill(llama, tokens(50))
    found = lt.score_layers(enough, WINDOW, last=6, tokens=41)
    np.testing.assert_array_equal(found.values, lt.score_layers(whole, WINDOW, last=6, tokens=41).values)
    with pytest.raises(PrefillMismatchError, match=r"15 rows .* kept 14: .*query_rows=15"):
        lt.score_layers(few, WINDOW, last=6, tokens=41)


def test_all_of_a_prompt_is_a_beginning_too(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    np.testing.assert_array_equal(
        lt.score_layers(prefill, WINDOW, tokens=50).values, lt.score_layers(prefill, WINDOW).values
    )


def test_a_beginning_that_fits_the_window_is_not_ranked(llama: PreTrainedModel) -> None:
    with pytest.warns(ShortPromptWarning, match="11 tokens"):
        assert not lt.score_layers(lt.run_prefill(llama, tokens(50)), WINDOW, tokens=11).informative


@pytest.mark.parametrize("count", [0, -1, 51, 2.5, True])
def test_what_is_no_beginning_is_refused(llama: PreTrainedModel, count: object) -> None:
    with pytest.raises(InvalidInputError, match="1 to 50"):
        lt.score_layers(lt.run_prefill(llama, tokens(50)), WINDOW, tokens=count)


def test_a_metric_that_lets_the_model_go_on_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(InvalidInputError, match="leave_one_out_kl tries out"):
        lt.score_layers(lt.run_prefill(llama, tokens(50)), WINDOW, metric="leave_one_out_kl", tokens=41)
