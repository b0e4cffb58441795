"""Models that turn longer texts by other frequencies: one prompt is turned alike in every chunk, or refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedConfig, PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attached, turning_point
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import InvalidInputError, InvalidPromptError, UnsupportedRequestError
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


def make(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(7)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv_proj")):
                weight.mul_(12.0)
    return model


@pytest.fixture(params=["llama", "phi3"])
def turning(request: pytest.FixtureRequest) -> PreTrainedModel:
    if request.param == "llama":
        return make(LlamaConfig(**SHARED, rope_parameters=ROPE))
    return make(Phi3Config(**SHARED, sliding_window=None, rope_parameters=ROPE, original_max_position_embeddings=TURN))


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
def test_dynamic_frequencies_of_a_stated_prompt_are_those_of_one_pass() -> None:
    """Beyond the model's own length each length has its own; a prefill refuses prompts of that length."""
    parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    model = make(LlamaConfig(**{**SHARED, "max_position_embeddings": TURN}, rope_parameters=parameters))
    ids = tokens(60)
    expected = in_one_pass(model, ids)
    model = make(model.config)  # what it has learned of lengths is forgotten
    with lt.hybrid(model, ConversionPlan(), prompt_tokens=60) as cache:
        parts = [model(part, past_key_values=cache).logits[0] for part in ids.split(20, dim=1)]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("pads", [(12, 15), (0, 15)])
def test_padding_counts_as_the_model_counts_it(turning: PreTrainedModel, pads: tuple[int, ...], counted: bool) -> None:
    ids, mask = tokens(40, batch=2), torch.ones(2, 40, dtype=torch.long)
    for row, pad in enumerate(pads):
        mask[row, :pad] = 0
    positions = torch.arange(40)[None].expand(2, -1) if counted else (mask.cumsum(1) - 1).clamp(min=0)
    expected = turning(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]
    for chunks in ([(0, 40)], [(0, 18), (18, 40)]):
        with lt.hybrid(turning, PLAN, prompt_tokens=40) as cache:
            for start, stop in chunks:
                given = {} if counted else {"position_ids": positions[:, start:stop]}
                actual = turning(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache, **given)
        torch.testing.assert_close(actual.logits[:, -1], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_padded_text_that_grows_past_the_point_is_refused(turning: PreTrainedModel) -> None:
    ids, mask = tokens(40, batch=2), torch.ones(2, 40, dtype=torch.long)
    mask[:, :10] = 0
    with lt.hybrid(turning, PLAN) as cache:
        turning(ids[:, :30], attention_mask=mask[:, :30], past_key_values=cache)
        with pytest.raises(UnsupportedRequestError, match="LongRoPE"):
            turning(ids[:, 30:], attention_mask=mask, past_key_values=cache)


@torch.no_grad()
def test_embeddings_that_grow_past_the_point_are_refused(turning: PreTrainedModel) -> None:
    entering = turning.get_input_embeddings()(tokens(40))
    with lt.hybrid(turning, PLAN) as cache:
        turning(inputs_embeds=entering[:, :30], past_key_values=cache)
        with pytest.raises(UnsupportedRequestError, match="LongRoPE"):
            turning(inputs_embeds=entering[:, 30:], past_key_values=cache)


@pytest.mark.parametrize(("first", "second"), [(30, 40), (40, 30), (40, 50), (20, 30)])
def test_what_was_turned_otherwise_is_not_taken_over(turning: PreTrainedModel, first: int, second: int) -> None:
    ids = tokens(60)
    earlier = lt.run_prefill(turning, ids[:, :first])
    prefill = lt.run_prefill(turning, ids[:, :second], earlier=earlier)
    torch.testing.assert_close(prefill.logits, in_one_pass(turning, ids[:, :second])[-1], atol=1e-4, rtol=0)
    assert bool(prefill.taken_over) == ((first > TURN) == (second > TURN))


def test_without_our_cache_the_model_is_as_it_was(turning: PreTrainedModel) -> None:
    ids = tokens(40)
    passes = [partial(in_one_pass, turning, ids), partial(in_one_pass, turning, ids[:, :20])]
    passes.append(lambda: turning.model(ids[:, :20], use_cache=False).last_hidden_state.detach())
    expected = [compute() for compute in passes]
    with attached(turning):
        for compute, known in zip(passes, expected, strict=True):
            lt.run_prefill(turning, tokens(60))
            torch.testing.assert_close(compute(), known, atol=1e-4, rtol=0)


def test_a_text_that_grows_past_the_point_is_refused(turning: PreTrainedModel) -> None:
    prefill = lt.run_prefill(turning, tokens(TURN - 2))
    assert prefill.spec.room(TURN - 2) == 2
    assert replace(prefill.spec, turning_point=600).room(TURN - 2) == 512 - (TURN - 2)
    with pytest.raises(InvalidPromptError, match=r"more than 32 tokens.*at most 2 new"):
        Branch(prefill).forward(tokens(3))
    assert len(list(lt.decode(prefill, PLAN, 3))) == 3, "the last token is not fed back"
    with torch.no_grad(), lt.hybrid(turning, PLAN) as cache:
        turning(tokens(TURN - 2), past_key_values=cache)
        with pytest.raises(UnsupportedRequestError, match="LongRoPE"):
            turning(tokens(3), past_key_values=cache)
        turning(tokens(2), past_key_values=cache)


def test_generation_of_a_long_prompt_keeps_its_cache_and_one_that_grows_past_the_point_is_refused(
    turning: PreTrainedModel,
) -> None:
    """Some of these models drop a cache at that length and compute the whole text anew with one of their own."""
    ids = tokens(40)
    with lt.hybrid(turning, PLAN) as cache:
        out = turning.generate(ids, max_new_tokens=6, do_sample=False, past_key_values=cache)
    assert (cache.seen_tokens, cache.lazy_layers) == (45, PLAN.lazy_layers)
    expected = [event.token_id for event in lt.decode(lt.run_prefill(turning, ids), PLAN, 6)]
    assert out[0, 40:].tolist() == expected
    with lt.hybrid(turning, PLAN), pytest.raises(UnsupportedRequestError, match="LongRoPE"):
        turning.generate(ids[:, : TURN - 4], max_new_tokens=12, do_sample=False)


def test_readings_behind_the_prompt_end_before_it(turning: PreTrainedModel) -> None:
    """Echo reads passages again, as far as there is room."""
    prefill = lt.run_prefill(turning, tokens(TURN - 2))
    scores = lt.score_layers(prefill, Window(1, 4), last=4, metric="echo")
    assert scores.informative


def test_a_beginning_that_would_have_been_turned_otherwise_is_not_scored(turning: PreTrainedModel) -> None:
    prefill = lt.run_prefill(turning, tokens(60))
    with pytest.raises(InvalidInputError, match="rotary frequencies"):
        lt.score_layers(prefill, Window(1, 4), last=4, tokens=TURN)
    assert lt.score_layers(prefill, Window(1, 4), last=4, tokens=TURN + 1).num_tokens == TURN + 1


def test_only_a_cache_that_such_models_would_drop_is_false(turning: PreTrainedModel) -> None:
    """So that who writes `cache or DynamicCache()` gets what they gave."""
    with lt.hybrid(turning, PLAN) as cache:
        assert not cache
    with lt.hybrid(make(CONFIGS["llama"]()), PLAN) as cache:
        assert cache
