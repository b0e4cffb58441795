"""Metrics against models in which it is known which layer must stay full, and that every other one may stream."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import lighttransfer_core as lt
from lighttransfer_core.decoding import Branch
from tests.laziness.planted import Planted, prompt

WINDOW = lt.Window(4, 60)
SEEDS = range(6)

MODELS = {
    "llama": Planted("llama", layers=4, copying=0, retrieving=2, head=1, diffuse=(1, 3)),
    "qwen2": Planted("qwen2", layers=5, copying=1, retrieving=3, head=2, diffuse=(0, 2)),
    "mistral": Planted("mistral", layers=4, copying=0, retrieving=1, head=3, diffuse=(2, 3)),
}
FINDS_IT = (lt.RECOMMENDED_METRIC, "worst_head", "residual_change_worst")
"""Metrics that one head and one query can decide."""


@cache
def prefills(name: str, without: int = 0) -> list[lt.Prefill]:
    """Of every prompt, perhaps without its last tokens."""
    model = MODELS[name].build()
    return [lt.run_prefill(model, prompt(seed)[0][:, : -without or None]) for seed in SEEDS]


def right(name: str, lazy: tuple[int, ...]) -> int:
    """Prompts that are answered with the right value when these layers stream as the last token is read."""
    found = 0
    for seed, prefill in zip(SEEDS, prefills(name, without=1), strict=True):
        ids, answer = prompt(seed)
        logits = Branch(prefill, lt.ConversionPlan(lazy, WINDOW)).forward(ids[:, -1:])
        found += int(logits[-1].argmax()) == answer
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_truth_is_as_planted(name: str) -> None:
    planted = MODELS[name]
    others = tuple(layer for layer in range(planted.layers) if layer != planted.retrieving)
    assert right(name, ()) == len(SEEDS)
    assert right(name, others) == len(SEEDS)
    assert right(name, (planted.retrieving,)) == 0


@pytest.mark.parametrize("metric", FINDS_IT)
@pytest.mark.parametrize("name", MODELS)
def test_the_layer_that_retrieves_is_found(name: str, metric: str) -> None:
    for prefill in prefills(name):
        assert lt.score_layers(prefill, WINDOW, metric=metric).ranking()[-1] == MODELS[name].retrieving


@pytest.mark.parametrize("name", MODELS)
def test_a_mean_over_heads_and_queries_hides_it(name: str) -> None:
    for prefill in prefills(name):
        scores = lt.score_layers(prefill, WINDOW, metric="lazy_ratio")
        assert MODELS[name].retrieving in lt.plan_from_scores(scores, keep_full=0.5).lazy_layers


def test_what_the_layer_looks_at_is_the_fact() -> None:
    """One head of one layer, at the last token only."""
    planted, prefill, ids = MODELS["llama"], prefills("llama")[0], prompt(0)[0][0]
    weights = torch.from_numpy(prefill.attention(planted.retrieving, planted.head, rows=(419, 420)))[0]
    place = int(weights.argmax())
    assert int(ids[place - 1]) == int(ids[-1])
    assert float(weights[place]) > 0.99
