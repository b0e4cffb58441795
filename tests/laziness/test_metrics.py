from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import LayerRecord, attention_layers
from lighttransfer_core.attention.projection import attention_modules, output_projections
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidWindowError,
    PrefillMismatchError,
    ShortPromptWarning,
    UninformativeScoresError,
    UnknownMetricError,
)
from lighttransfer_core.keep import Keep
from lighttransfer_core.laziness import get_metric, metric_info
from lighttransfer_core.laziness.reach_effect import FLOOR
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
    scores = lt.score_layers(lt.run_prefill(tiny, ids, chunk_tokens=21), WINDOW, last=6, metric="lazy_ratio")
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


@pytest.mark.parametrize("percent", [1, 5, 25])
def test_low_quantiles(llama: PreTrainedModel, percent: int) -> None:
    ids = tokens(50)
    scores = lt.score_layers(lt.run_prefill(llama, ids), WINDOW, last=6, metric=f"low_quantile_{percent:02d}")
    sink, recent = brute_masses(llama, ids, 6)
    mass = (sink + recent).reshape(4, -1)
    np.testing.assert_allclose(scores.values, np.quantile(mass, percent / 100, axis=1), atol=1e-5)
    np.testing.assert_allclose(scores.per_head, np.quantile(sink + recent, percent / 100, axis=2), atol=1e-5)


def test_simlayer_asks_the_last_query_and_its_rule_is_a_threshold(llama: PreTrainedModel) -> None:
    ids = tokens(50)
    scores = lt.score_layers(lt.run_prefill(llama, ids), WINDOW, last=6, metric="simlayer")
    sink, recent = brute_masses(llama, ids, 6)
    mass = (sink + recent)[..., -1]
    np.testing.assert_allclose(scores.values, mass.mean(1), atol=1e-5)
    np.testing.assert_allclose(scores.per_head, mass, atol=1e-5)
    middle = float(np.sort(mass.mean(1))[1:3].mean())
    plan = lt.plan_from_threshold(scores, middle)
    assert plan.lazy_layers == tuple(np.flatnonzero(mass.mean(1) > middle))
    assert (len(plan.lazy_layers), plan.window, plan.model) == (2, WINDOW, scores.model)
    assert lt.plan_from_threshold(scores, 1.0).lazy_layers == ()
    assert lt.plan_from_threshold(scores, 0).lazy_layers == (0, 1, 2, 3)
    for wrong in ("0.9", None, float("nan")):
        with pytest.raises(InvalidInputError, match="threshold"):
            lt.plan_from_threshold(scores, wrong)


@pytest.mark.parametrize("chunk", [50, 21, 1])
def test_squeeze_cosine_is_the_turn_of_the_residual_stream(architecture: str, chunk: int) -> None:
    """Against the outputs of the attention modules, seen by hooks of this test's own."""
    model, ids = make_tiny(architecture), tokens(50)
    added: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _args, output: added.append(output[0][0].double()))
        for module in attention_modules(model).values()
    ]
    streams = residual_streams(model, ids)
    for hook in hooks:
        hook.remove()
    prefill = lt.run_prefill(model, ids, Keep(query_rows=6), chunk_tokens=chunk)
    scores = lt.score_layers(prefill, WINDOW, last=6, metric="squeeze_cosine")
    assert scores.per_head is None
    assert scores.per_query is not None
    for layer, (before, adds) in enumerate(zip(streams, added, strict=True)):
        after = before + adds.numpy()
        cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
        np.testing.assert_allclose(scores.values[layer], cosine.mean(), atol=1e-5)
        np.testing.assert_allclose(scores.per_query[layer], cosine[-6:], atol=1e-5)


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


@cache
def prefill_of(architecture: str) -> lt.Prefill:
    return lt.run_prefill(make_tiny(architecture), tokens(50))


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials read six tokens, not as many as a real model needs."""
    monkeypatch.setattr("lighttransfer_core.laziness.trials.ANSWER_TOKENS", 6)


@pytest.mark.parametrize("name", lt.list_metrics())
@pytest.mark.usefixtures("short_answers")
def test_the_contract_of_every_metric(name: str, architecture: str) -> None:
    prefill = prefill_of(architecture)
    model = prefill.lm.model
    scores = lt.score_layers(prefill, WINDOW, last=6, metric=name)
    assert scores.metric == name
    assert scores.values.shape == (4,)
    assert scores.values.dtype == np.float64
    assert np.isfinite(scores.values).all()
    assert sorted(scores.ranking()) == list(scores.convertible)
    info = metric_info(name)
    assert all(getattr(info, field) for field in ("title", "formula", "meaning", "source", "cost"))
    assert name in lt.list_metrics(info.kind)
    # What the metric says it needs is enough.
    rows = get_metric(name).query_rows(6)
    few = lt.run_prefill(model, tokens(50), keep=Keep(query_rows=rows))
    np.testing.assert_allclose(lt.score_layers(few, WINDOW, last=6, metric=name).values, scores.values, atol=1e-6)
    read = LayerScores.from_json(scores.to_json())
    assert read.ranking() == scores.ranking()
    assert (read.per_head is None) == (scores.per_head is None)


@pytest.mark.parametrize("name", lt.list_metrics("prompt"))
def test_the_contract_of_every_metric_of_the_prompt(name: str, architecture: str) -> None:
    prefill = prefill_of(architecture)
    scores = lt.score_layers(prefill, WINDOW, last=6, metric=name)
    assert scores.per_query is not None
    assert scores.per_query.shape == (4, 6)
    assert (scores.values <= 1 + 1e-5).all()
    if name == "squeeze_cosine":  # knows no window
        return
    assert scores.per_head is not None
    assert scores.per_head.shape == (4, 6)
    lossless = get_metric(name).measure(prefill, Window(25, 25), 6).values
    np.testing.assert_allclose(lossless, 1.0, atol=1e-5, err_msg="a layer that loses nothing")


@pytest.mark.parametrize("learned", [False, True])
def test_output_change_equals_two_masked_softmaxes(learned: bool, architecture: str) -> None:
    """Against float64 attention of the last queries, over all tokens and over the window's, each with its softmax."""
    model = make_tiny(architecture)
    prefill = lt.run_prefill(model, tokens(50))
    if learned:
        sinks = torch.linspace(-1, 2, 6)
        records = tuple(_with_learned_sink(record, sinks) for record in prefill.records)
        prefill = replace(prefill, records=records)
    streams = residual_streams(model, tokens(50))
    for record, stream in zip(prefill.records, streams, strict=True):
        np.testing.assert_allclose(record.residual_norm, np.linalg.norm(stream, axis=-1), rtol=1e-4)
    mean = lt.score_layers(prefill, WINDOW, last=6, metric="output_change")
    worst = lt.score_layers(prefill, WINDOW, last=6, metric="output_change_worst")
    worst_head, reach = (lt.score_layers(prefill, WINDOW, last=6, metric=m) for m in ("worst_head", "reach_effect"))
    kept = np.r_[0:3, 42:50]
    for layer, record in enumerate(prefill.records):
        weight = output_projections(model)(layer).detach().double().numpy()
        whole = weight @ _attention_output(record, np.arange(50))
        cut = weight @ _attention_output(record, kept)
        change = np.linalg.norm(whole - cut, axis=0) / np.linalg.norm(whole, axis=0)
        assert mean.per_query is not None
        np.testing.assert_allclose(mean.per_query[layer], 1 - change, atol=1e-4)
        np.testing.assert_allclose(mean.values[layer], 1 - change.mean(), atol=1e-4)
        np.testing.assert_allclose(worst.values[layer], 1 - change.max(), atol=1e-4)
        moved = np.linalg.norm(whole - cut, axis=0) / np.linalg.norm(streams[layer][-6:], axis=-1)
        for name, expected in (("residual_change", moved.mean()), ("residual_change_worst", moved.max())):
            found = lt.score_layers(prefill, WINDOW, last=6, metric=name)
            np.testing.assert_allclose(found.values[layer], 1 - expected, atol=1e-4)
        seen = np.array(worst_head.values[layer]) + FLOOR
        np.testing.assert_allclose(reach.values[layer], seen / (seen + moved.max()), atol=1e-4)
        assert worst_head.per_query is not None
        assert reach.per_query is not None
        seen = worst_head.per_query[layer] + FLOOR
        np.testing.assert_allclose(reach.per_query[layer], seen / (seen + moved), atol=1e-4)


def residual_streams(model: PreTrainedModel, ids: torch.Tensor) -> list[np.ndarray]:
    """`[T, hidden]` as it enters each layer, as transformers itself reports it."""
    with torch.no_grad():
        states = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    return [state[0].double().numpy() for state in states[:-1]]


def test_a_model_whose_stream_cannot_be_seen_is_told_so(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    unseen = {"residual_norm": None, "residual_cosine": None}
    blind = replace(prefill, records=tuple(replace(record, **unseen) for record in prefill.records))
    for metric in ("residual_change_worst", "squeeze_cosine"):
        with pytest.raises(PrefillMismatchError, match="residual stream"):
            lt.score_layers(blind, WINDOW, metric=metric)


def test_a_projection_that_is_stored_the_other_way_round() -> None:
    """GPT-2 keeps its weights transposed."""
    config = GPT2Config(vocab_size=97, n_embd=48, n_layer=2, n_head=6, n_positions=64, eos_token_id=None)
    torch.manual_seed(7)
    model = GPT2LMHeadModel(config).eval()
    prefill = lt.run_prefill(model, tokens(50))
    added: list[torch.Tensor] = []
    for module in attention_modules(model).values():
        module.register_forward_hook(lambda _module, _args, output: added.append(output[0][0, -6:]))
    with torch.no_grad():
        model(tokens(50))
    for layer, expected in enumerate(added):
        outputs = torch.from_numpy(_attention_output(prefill.records[layer], np.arange(50))).float()
        bias = model.transformer.h[layer].attn.c_proj.bias
        weight = output_projections(model)(layer)
        torch.testing.assert_close((weight @ outputs).T + bias, expected, atol=1e-5, rtol=1e-4)


def _with_learned_sink(record: LayerRecord, sinks: torch.Tensor) -> LayerRecord:
    lse = torch.logaddexp(record.lse, sinks[:, None])
    return replace(record, learned_sink=sinks, lse=lse, output=None)  # what was kept knows no sink


def _attention_output(record: LayerRecord, seen: np.ndarray) -> np.ndarray:
    """`[H * D, 6]`, float64."""
    query, key, value = (t.double().numpy() for t in (record.query[:, -6:], record.key, record.value))
    columns = []
    for head in range(6):
        group = head // (6 // len(key))
        scores = record.scale * query[head] @ key[group, seen].T
        rows = np.arange(44, 50)[:, None]
        hidden = seen > rows
        if record.window is not None:
            hidden |= seen <= rows - record.window
        weights = np.exp(np.where(hidden, -np.inf, scores))
        total = weights.sum(-1)
        if record.learned_sink is not None:
            total += np.exp(float(record.learned_sink[head]))
        columns.append((weights @ value[group, seen] / total[:, None]).T)
    return np.concatenate(columns)


@pytest.mark.usefixtures("short_answers")
def test_leave_one_out_equals_trying_each_layer_alone(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    answer = [event.token_id for event in lt.decode(prefill, None, 6)]
    text = torch.tensor([answer])
    full = lt.continuation_nll(prefill, None, text).mean()
    nll = lt.score_layers(prefill, WINDOW, metric="leave_one_out_nll").values
    for layer in range(4):
        alone = lt.continuation_nll(prefill, lt.ConversionPlan((layer,), WINDOW), text).mean()
        assert nll[layer] == pytest.approx(float(full - alone), abs=1e-4)
    kl = lt.score_layers(prefill, WINDOW, metric="leave_one_out_kl").values
    for layer in range(4):
        found = lt.compare(prefill, None, lt.ConversionPlan((layer,), WINDOW), 6)
        assert kl[layer] == pytest.approx(-float(np.mean(found.kl)), abs=1e-4)


@pytest.mark.usefixtures("short_answers")
def test_greedy_takes_the_cheapest_layer_each_time(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))
    ranking = lt.score_layers(prefill, WINDOW, metric="greedy_kl").ranking()

    def cost(layers: tuple[int, ...]) -> float:
        return float(np.mean(lt.compare(prefill, None, lt.ConversionPlan(layers, WINDOW), 6).kl))

    for step in range(4):
        before, rest = ranking[:step], ranking[step:]
        costs = {layer: cost((*before, layer)) for layer in rest}
        assert costs[ranking[step]] <= min(costs.values()) + 1e-4


def test_controls(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(50))

    def ranking(name: str) -> list[int]:
        return lt.score_layers(prefill, WINDOW, metric=name).ranking()

    assert ranking("depth_early") == [0, 1, 2, 3]
    assert ranking("depth_late") == [3, 2, 1, 0]
    assert ranking("periodic_2_0")[:2] == [3, 1]
    assert ranking("periodic_2_1")[:2] == [2, 0]
    assert ranking("periodic_4_2")[:3] == [3, 1, 0]
    assert ranking("inverse_lazy_ratio") == ranking("lazy_ratio")[::-1]
    assert len({tuple(ranking(f"random_{seed}")) for seed in range(5)}) > 1
    assert ranking("random_3") == ranking("random_3")


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
