from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attention_layers
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidWindowError,
    PrefillMismatchError,
    ShortPromptWarning,
    UninformativeScoresError,
    UnknownMetricError,
)
from lighttransfer_core.laziness import get_metric, metric_info
from lighttransfer_core.prefill import Keep
from lighttransfer_core.types import LayerScores, Window
from tests.conftest import make_tiny, tokens
from tests.reference import eager_attentions

WINDOW = Window(3, 8)


def brute_masses(model: PreTrainedModel, ids: torch.Tensor, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Mass `[L, H, last]` on sinks and on recent tokens, from eager attention in float64."""
    weights = [layer[0, :, -last:].double().numpy() for layer in eager_attentions(model.double(), ids)]
    model.float()
    sink = np.stack([w[..., : WINDOW.sink].sum(-1) for w in weights])
    recent = np.stack([w[..., -WINDOW.recent :].sum(-1) for w in weights])
    return sink, recent


def test_lazy_ratio_and_its_split_equal_float64_eager_attention(tiny: PreTrainedModel) -> None:
    ids = tokens(50)
    scores = lt.score_layers(lt.run_prefill(tiny, ids, chunk_tokens=21), WINDOW, last=6)
    sink, recent = brute_masses(tiny, ids, 6)
    np.testing.assert_allclose(scores.values, (sink + recent).mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(scores.sink, sink.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(scores.recent, recent.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(scores.rest, 1 - (sink + recent).mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(scores.per_head, (sink + recent).mean(2), atol=1e-5)
    np.testing.assert_allclose(scores.per_query, (sink + recent).mean(1), atol=1e-5)
    assert scores.convertible == tuple(i for i, k in enumerate(attention_layers(tiny.config)) if k.kind == "full")


def test_worst_head_is_the_minimum(llama: PreTrainedModel) -> None:
    ids = tokens(50)
    scores = lt.score_layers(lt.run_prefill(llama, ids), WINDOW, last=6, metric="worst_head")
    sink, recent = brute_masses(llama, ids, 6)
    np.testing.assert_allclose(scores.values, (sink + recent).min((1, 2)), atol=1e-5)
    np.testing.assert_allclose(scores.per_head, (sink + recent).min(2), atol=1e-5)
    np.testing.assert_allclose(scores.per_query, (sink + recent).min(1), atol=1e-5)


def test_learned_sinks_take_a_fourth_share() -> None:
    from transformers import GptOssConfig, GptOssForCausalLM

    from tests.conftest import SHARED

    config = GptOssConfig(**SHARED, head_dim=16, sliding_window=600, num_local_experts=2, num_experts_per_tok=1)
    model = GptOssForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.normal_()
    ids = tokens(40)
    scores = lt.score_layers(lt.run_prefill(model, ids), WINDOW, last=6)
    weights = [layer[0, :, -6:].double() for layer in eager_attentions(model, ids)]
    learned = np.array([float(1 - w.sum(-1).mean()) for w in weights])
    assert scores.learned_sink is not None
    np.testing.assert_allclose(scores.learned_sink, learned, atol=1e-5)
    np.testing.assert_allclose(scores.sink + scores.recent + scores.rest + scores.learned_sink, 1.0, atol=1e-6)
    assert (scores.learned_sink > 0.005).all()
    total = lt.aggregate_scores([scores, scores])
    assert total.learned_sink is not None
    np.testing.assert_allclose(total.learned_sink, scores.learned_sink)


@pytest.mark.parametrize("name", lt.list_metrics())
def test_the_contract_of_every_metric(name: str, architecture: str) -> None:
    model = make_tiny(architecture)
    prefill = lt.run_prefill(model, tokens(50))
    scores = lt.score_layers(prefill, WINDOW, last=6, metric=name)
    assert scores.metric == name
    assert scores.values.shape == (4,)
    assert scores.values.dtype == np.float64
    assert scores.per_head.shape == (4, 6)
    assert scores.per_query.shape == (4, 6)
    assert np.isfinite(scores.values).all()
    assert sorted(scores.ranking()) == list(scores.convertible)
    assert all(getattr(metric_info(name), field) for field in ("title", "formula", "meaning", "source", "cost"))
    # A layer that loses nothing is at least as lazy as it was.
    lossless = get_metric(name).per_pair(prefill.records[0], Window(25, 25), 6)
    assert bool((lossless >= get_metric(name).per_pair(prefill.records[0], WINDOW, 6) - 1e-6).all())
    # What the metric says it needs is enough.
    rows = get_metric(name).query_rows(6)
    few = lt.run_prefill(model, tokens(50), keep=Keep(query_rows=rows))
    np.testing.assert_allclose(lt.score_layers(few, WINDOW, last=6, metric=name).values, scores.values, atol=1e-6)
    assert LayerScores.from_json(scores.to_json()).ranking() == scores.ranking()


@pytest.mark.parametrize("length", [5, 10, 11])
def test_a_prompt_that_fits_the_window_is_not_ranked(llama: PreTrainedModel, length: int) -> None:
    with pytest.warns(ShortPromptWarning, match=f"{length} tokens and the window keeps 11"):
        scores = lt.score_layers(lt.run_prefill(llama, tokens(length)), WINDOW)
    np.testing.assert_allclose(scores.values, 1.0, atol=1e-6)
    assert not scores.informative
    with pytest.raises(UninformativeScoresError, match="longer prompt"):
        scores.ranking()
    with pytest.raises(UninformativeScoresError):
        lt.plan_from_scores(scores)


def test_a_prompt_one_longer_than_the_window_is_ranked(llama: PreTrainedModel) -> None:
    assert lt.score_layers(lt.run_prefill(llama, tokens(12)), WINDOW).informative


def made_up(values: list[float], convertible: tuple[int, ...] | None = None) -> LayerScores:
    count = len(values)
    ones = np.ones(count)
    return LayerScores(
        metric="lazy_ratio",
        window=WINDOW,
        last=2,
        num_tokens=50,
        values=np.array(values),
        sink=ones,
        recent=ones,
        rest=ones,
        per_head=np.ones((count, 2)),
        per_query=np.ones((count, 2)),
        convertible=convertible or tuple(range(count)),
        informative=True,
    )


def test_ranking_is_laziest_first_and_breaks_ties_towards_the_higher_index() -> None:
    assert made_up([0.2, 0.9, 0.2, 0.9]).ranking() == [3, 1, 2, 0]


@pytest.mark.parametrize(("share", "full"), [(0.0, 0), (0.1, 1), (0.5, 3), (0.25, 1), (0.49, 2), (1.0, 5)])
def test_the_share_kept_full_rounds_halves_up(share: float, full: int) -> None:
    plan = lt.plan_from_scores(made_up([0.1, 0.2, 0.3, 0.4, 0.5]), share)
    assert plan.lazy_layers == tuple(range(full, 5))
    assert plan.window == WINDOW


def test_only_convertible_layers_count() -> None:
    plan = lt.plan_from_scores(made_up([0.9, 0.2, 0.8, 0.1], convertible=(1, 3)), 0.5)
    assert plan.lazy_layers == (1,)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="share"):
        lt.plan_from_scores(made_up([0.1, 0.2]), share)


def test_aggregation_is_the_mean_over_prompts(llama: PreTrainedModel) -> None:
    scores = [lt.score_layers(lt.run_prefill(llama, tokens(50, seed=s)), WINDOW, last=6) for s in range(3)]
    total = lt.aggregate_scores(scores)
    np.testing.assert_allclose(total.values, np.mean([s.values for s in scores], axis=0))
    np.testing.assert_allclose(total.per_head, np.mean([s.per_head for s in scores], axis=0))
    assert total.num_prompts == 3
    assert lt.plan_from_scores(total).window == WINDOW


def test_aggregating_what_does_not_belong_together_is_refused(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    one = lt.score_layers(prefill, WINDOW)
    for other in (lt.score_layers(prefill, Window(1, 8)), lt.score_layers(prefill, WINDOW, metric="worst_head")):
        with pytest.raises(InvalidInputError, match="averaged"):
            lt.aggregate_scores([one, other])
    with pytest.warns(ShortPromptWarning):
        short = lt.score_layers(lt.run_prefill(llama, tokens(9)), WINDOW)
    with pytest.raises(UninformativeScoresError):
        lt.aggregate_scores([one, short])
    with pytest.raises(InvalidInputError, match="at least one"):
        lt.aggregate_scores([])


def test_an_unknown_metric_names_the_known_ones(llama: PreTrainedModel) -> None:
    with pytest.raises(UnknownMetricError, match="lazy_ratio"):
        lt.score_layers(lt.run_prefill(llama, tokens(50)), WINDOW, metric="laziest")


@pytest.mark.parametrize("last", [0, -3, 1.5])
def test_numbers_of_queries_that_make_no_sense_are_refused(llama: PreTrainedModel, last: object) -> None:
    with pytest.raises(InvalidInputError, match="last"):
        lt.score_layers(lt.run_prefill(llama, tokens(50)), WINDOW, last=last)


def test_a_pair_in_place_of_a_window_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(InvalidWindowError, match="give Window"):
        lt.score_layers(lt.run_prefill(llama, tokens(20)), (4, 9))


def test_a_prefill_that_kept_too_few_queries_is_refused(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50), keep=Keep(query_rows=4))
    with pytest.raises(PrefillMismatchError, match="query_rows=6"):
        lt.score_layers(prefill, WINDOW, last=6)


def test_the_recommended_metric_is_registered() -> None:
    assert lt.RECOMMENDED_METRIC in lt.list_metrics()
