"""Models that turn longer texts by other frequencies: one prompt is turned alike in every chunk, or refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attached, turning_point
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import InvalidPromptError, UnsupportedRequestError
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import CONFIGS, SHARED, tokens
from tests.reference import masked_logits

TURN = 32
ROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": TURN,
    "rope_theta": 10_000.0,
}
PLAN = ConversionPlan((0, 2), Window(2, 9))


@pytest.fixture(params=["llama", "phi3"])
def turning(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(7)
    if request.param == "llama":
        config = LlamaConfig(**SHARED, rope_parameters=ROPE)
    else:
        config = Phi3Config(**SHARED, sliding_window=None, rope_parameters=ROPE, original_max_position_embeddings=TURN)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")):
                weight.mul_(12.0)
    return model


@torch.no_grad()
def in_one_pass(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits[0]


def test_the_turning_point_is_read_from_the_configuration(turning: PreTrainedModel) -> None:
    assert turning_point(turning.config) == TURN
    assert all(turning_point(make()) is None for make in CONFIGS.values())


def test_the_two_sets_of_frequencies_differ(turning: PreTrainedModel) -> None:
    """Else nothing below would be tested."""
    ids = tokens(TURN + 8)
    assert (in_one_pass(turning, ids)[TURN - 1] - in_one_pass(turning, ids[:, :TURN])[-1]).abs().max() > 0.1


@pytest.mark.parametrize("chunk", [7, 16, 60])
@pytest.mark.parametrize("length", [20, TURN, TURN + 1, 60])
def test_a_prompt_in_chunks_is_turned_as_in_one_pass(turning: PreTrainedModel, length: int, chunk: int) -> None:
    ids = tokens(length)
    expected = in_one_pass(turning, ids)[-1]
    prefill = lt.run_prefill(turning, ids, chunk_tokens=chunk)
    torch.testing.assert_close(prefill.logits, expected, atol=1e-4, rtol=0)


def test_what_follows_a_long_prompt_equals_the_reference(turning: PreTrainedModel) -> None:
    ids = tokens(60)
    branch = Branch(lt.run_prefill(turning, ids[:, :40], chunk_tokens=16), PLAN)
    parts = [branch.forward(ids[:, 40:47]), *(branch.forward(ids[:, t : t + 1]) for t in range(47, 60))]
    expected = masked_logits(turning, ids, 40, PLAN.lazy_layers, PLAN.window)[0, 40:]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_stated_prompt_in_chunks_inside_hybrid(turning: PreTrainedModel) -> None:
    ids = tokens(60)
    expected = masked_logits(turning, ids, 40, PLAN.lazy_layers, PLAN.window)[0]
    with lt.hybrid(turning, PLAN, prompt_tokens=40) as cache:
        parts = [turning(part, past_key_values=cache).logits[0] for part in ids.split([25, 15, 20], dim=1)]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pads", [(12, 15), (0, 15)])
def test_padding_does_not_count(turning: PreTrainedModel, pads: tuple[int, ...]) -> None:
    ids, mask = tokens(40, batch=2), torch.ones(2, 40, dtype=torch.long)
    for row, pad in enumerate(pads):
        mask[row, :pad] = 0
    inputs = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    expected = turning(ids, **inputs, use_cache=False).logits[:, -1]
    with lt.hybrid(turning, PLAN) as cache:
        actual = turning(ids, past_key_values=cache, **inputs).logits[:, -1]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_without_our_cache_the_model_is_as_it_was(turning: PreTrainedModel) -> None:
    ids = tokens(40)
    expected = in_one_pass(turning, ids), in_one_pass(turning, ids[:, :20])
    with attached(turning):
        lt.run_prefill(turning, tokens(60))
        actual = in_one_pass(turning, ids), in_one_pass(turning, ids[:, :20])
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_a_text_that_grows_past_the_point_is_refused(turning: PreTrainedModel) -> None:
    prefill = lt.run_prefill(turning, tokens(TURN - 2))
    assert prefill.spec.room(TURN - 2) == 2
    with pytest.raises(InvalidPromptError, match=r"more than 32 tokens.*at most 2 new"):
        Branch(prefill).forward(tokens(3))
    assert len(list(lt.decode(prefill, PLAN, 3))) == 3, "the last token is not fed back"
    with torch.no_grad(), lt.hybrid(turning, PLAN) as cache:
        turning(tokens(TURN - 2), past_key_values=cache)
        with pytest.raises(UnsupportedRequestError, match="LongRoPE"):
            turning(tokens(3), past_key_values=cache)
        turning(tokens(2), past_key_values=cache)


def test_generation_that_drops_its_cache_there_is_refused(turning: PreTrainedModel) -> None:
    ids = tokens(TURN - 4)
    with lt.hybrid(turning, PLAN), pytest.raises(UnsupportedRequestError, match="LongRoPE"):
        turning.generate(ids, max_new_tokens=12, do_sample=False)


def test_readings_behind_the_prompt_end_before_it(turning: PreTrainedModel) -> None:
    """Echo reads passages again, as far as there is room."""
    prefill = lt.run_prefill(turning, tokens(TURN - 2))
    scores = lt.score_layers(prefill, Window(1, 4), last=4, metric="echo")
    assert scores.informative
