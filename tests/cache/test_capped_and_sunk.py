"""Soft caps and learned sinks through the hybrid cache: prompt, follow-up and single steps against whole passes."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GptOssConfig, GptOssForCausalLM, PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.decoding import Branch
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import SHARED, tokens
from tests.reference import masked_logits

WINDOW = Window(2, 9)


def capped() -> PreTrainedModel:
    config = Gemma2Config(**SHARED, head_dim=16, sliding_window=11, attn_logit_softcapping=2.0)
    return Gemma2ForCausalLM(config)


def sunk() -> PreTrainedModel:
    config = GptOssConfig(**SHARED, head_dim=16, sliding_window=11, num_local_experts=2, num_experts_per_tok=1)
    return GptOssForCausalLM(config)


@pytest.fixture(params=[capped, sunk])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(3)
    made: PreTrainedModel = request.param()
    made.set_attn_implementation("eager")
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(12.0)
            if name.endswith("sinks"):
                weight.normal_()
    return made.eval()


def test_branches_equal_the_reference(model: PreTrainedModel) -> None:
    ids = tokens(30 + 7 + 20)
    prefill = lt.run_prefill(model, ids[:, :30], chunk_tokens=13)
    lazy = prefill.spec.convertible_layers[:1]
    assert lazy
    for plan in (ConversionPlan((), WINDOW), ConversionPlan(lazy, WINDOW)):
        branch = Branch(prefill, plan)
        parts = [branch.forward(ids[:, 30:37]), *(branch.forward(ids[:, t : t + 1]) for t in range(37, 57))]
        expected = masked_logits(model, ids, 30, plan.lazy_layers, WINDOW)[0, 30:]
        torch.testing.assert_close(torch.cat(parts), expected, atol=1e-4, rtol=0)


def test_on_the_fly_sees_caps_and_sinks(model: PreTrainedModel) -> None:
    ids = tokens(50)
    choice = lt.OnTheFly(0.5, WINDOW, last=8)
    with torch.no_grad(), lt.hybrid(model, choice) as cache:
        model(ids, past_key_values=cache)
    scores = lt.score_layers(lt.run_prefill(model, ids), WINDOW, last=8)
    assert cache.lazy_layers == lt.plan_from_scores(scores, 0.5).lazy_layers
