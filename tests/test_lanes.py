"""Lanes side by side: follow, restart, further turns and forks, each against the exact reference or a lane alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import lighttransfer_core as lt
from lighttransfer_core.attention import use_lighttransfer_attention
from lighttransfer_core.comparison import summarize
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.events import LaneSettings, LaneStep
from lighttransfer_core.lanes import Lanes, Sampling
from lighttransfer_core.models import LoadedModel, describe
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import tokens
from tests.reference import masked_logits

PROMPT = 40
WINDOW = Window(2, 5)
FULL = LaneSettings()
PLANS = [ConversionPlan(layers, WINDOW) for layers in ((0, 1, 2), (3,), (0, 1, 2, 3))]
HALF = LaneSettings(PLANS[0])


def run(lanes: Lanes) -> list[LaneStep]:
    steps = []
    while not lanes.done:
        steps += lanes.advance()
    return steps


def text_of(steps: list[LaneStep], lane: int, turn: int = 0) -> list[int]:
    return [one.event.token_id for one in steps if one.lane == lane and one.turn == turn and one.event]


def kl_of(steps: list[LaneStep], lane: int, turn: int = 0) -> list[float]:
    return [one.kl for one in steps if one.lane == lane and one.turn == turn and one.kl is not None]


def expected_kl(model: PreTrainedModel, text: torch.Tensor, start: int, plan: ConversionPlan) -> list[float]:
    """KL(full || plan) at each token of `[1, n]` text from `start` on, by eager attention with masks made by hand."""
    full, other = (
        masked_logits(model, text, PROMPT, layers, WINDOW)[0, start - 1 : -1].double().log_softmax(-1)
        for layers in ((), plan.lazy_layers)
    )
    return list((full.exp() * (full - other)).sum(-1).tolist())


def test_four_lanes_equal_four_comparisons(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    steps = run(Lanes(prefill, [FULL, *map(LaneSettings, PLANS)], 12))
    for lane, plan in enumerate(PLANS, start=1):
        alone = lt.compare(prefill, None, plan, 12)
        assert text_of(steps, lane) == list(alone.tokens_b)
        assert kl_of(steps, lane) == pytest.approx(list(alone.kl), abs=1e-12)


def test_a_follower_reads_the_references_text_and_says_what_it_would_have_chosen(llama: PreTrainedModel) -> None:
    ids = tokens(PROMPT)
    prefill = lt.run_prefill(llama, ids)
    steps = run(Lanes(prefill, [FULL, LaneSettings(PLANS[0], follow=True)], 12, candidates=3))
    assert text_of(steps, 1) == text_of(steps, 0)
    text = torch.cat([ids, torch.tensor([text_of(steps, 0)])], dim=1)
    logits = masked_logits(llama, text, PROMPT, PLANS[0].lazy_layers, WINDOW)[0, PROMPT - 1 : -1]
    followed = [one for one in steps if one.lane == 1]
    own = logits.argmax(-1).tolist()
    assert [one.candidates[0].token_id for one in followed] == own
    found = summarize(steps, 1, follows=True)
    assert list(found.tokens_b) == own
    drawn = [replace(one, event=replace(one.event, token_id=0)) if one.event else one for one in steps]
    assert summarize(drawn, 1, follows=True).first_divergence == found.first_divergence, "a draw says nothing of a lane"
    differs = [step for step, token in enumerate(text_of(steps, 0)) if own[step] != token]
    assert found.first_divergence == differs[0]
    logprobs = logits.log_softmax(-1)
    for one, row in zip(followed, logprobs, strict=True):
        assert one.event is not None
        assert one.event.logprob == pytest.approx(float(row[one.event.token_id]), abs=1e-4)
        assert [c.logprob for c in one.candidates] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    assert kl_of(steps, 1) == pytest.approx(expected_kl(llama, text, PROMPT, PLANS[0]), abs=1e-5)
    assert [one.over for one in followed] == [False] * 11 + [True]


def test_a_lane_that_is_started_anew_catches_up_and_is_compared_as_if_it_had_been_there(
    llama: PreTrainedModel,
) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    lanes = Lanes(prefill, [FULL, HALF, LaneSettings(PLANS[1])], 14, restartable=True)
    for _ in range(6):
        lanes.advance()
    assert lanes.level
    lanes.restart(1, LaneSettings(PLANS[2]))
    assert not lanes.level
    caught_up = [lanes.advance() for _ in range(6)]
    assert [[one.lane for one in steps] for steps in caught_up] == [[1]] * 6, "the others wait"
    assert lanes.level
    steps = [one for steps in caught_up for one in steps] + run(lanes)
    alone = lt.compare(prefill, None, PLANS[2], 14)
    assert text_of(steps, 1) == list(alone.tokens_b)
    assert kl_of(steps, 1) == pytest.approx(list(alone.kl), abs=1e-12)


def test_a_lane_restarted_after_the_end_of_the_others(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    lanes = Lanes(prefill, [FULL, HALF], 6, restartable=True)
    run(lanes)
    lanes.restart(1, LaneSettings(PLANS[2]))
    assert not lanes.done
    assert text_of(run(lanes), 1) == list(lt.compare(prefill, None, PLANS[2], 6).tokens_b)


@pytest.mark.parametrize("end_early", [False, True])
def test_further_turns_continue_both_texts(llama: PreTrainedModel, end_early: bool) -> None:
    ids, question = tokens(PROMPT), [5, 6, 7]
    prefill = lt.run_prefill(llama, ids)
    free = run(Lanes(prefill, [FULL, HALF], 8))
    parts = next(i for i, (a, b) in enumerate(zip(text_of(free, 0), text_of(free, 1), strict=True)) if a != b)
    if end_early:
        llama.generation_config.eos_token_id = [text_of(free, 1)[parts]]
    lanes = Lanes(prefill, [FULL, HALF], 8, restartable=True)
    first = run(lanes)
    lanes.ask(question)
    second = run(lanes)
    assert second
    stop = {llama.generation_config.eos_token_id[0]} if end_early else set()
    texts = {}
    for lane, plan in enumerate((ConversionPlan(), PLANS[0])):
        said = [token for token in text_of(first, lane) if token not in stop]
        texts[lane] = torch.cat([ids, torch.tensor([[*said, *question, *text_of(second, lane, 1)]])], dim=1)
        logits = masked_logits(llama, texts[lane], PROMPT, plan.lazy_layers, WINDOW)[0]
        start = PROMPT + len(said) + len(question)
        assert logits[start - 1 : -1].argmax(-1).tolist() == text_of(second, lane, 1)
        assert lanes.seen_tokens[lane] == texts[lane].shape[1] - 1
    start = PROMPT + len([t for t in text_of(first, 0) if t not in stop]) + len(question)
    assert kl_of(second, 1, 1) == pytest.approx(expected_kl(llama, texts[0], start, PLANS[0]), abs=1e-5)
    lanes.restart(1, HALF)
    again = run(lanes)
    assert (text_of(again, 1), text_of(again, 1, 1)) == (text_of(first, 1), text_of(second, 1, 1))
    assert kl_of(again, 1) == kl_of(first, 1)
    assert kl_of(again, 1, 1) == kl_of(second, 1, 1)


def test_a_fork_goes_its_own_way(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    lanes = Lanes(prefill, [FULL, HALF], 6, Sampling(0.8, 3), record=True)
    run(lanes)
    twin = lanes.fork()
    before = lanes.branch(1).cache.layer_nbytes()
    twin.ask([9, 9, 9])
    one = run(twin)
    assert lanes.branch(1).cache.layer_nbytes() == before
    kept, longer = lanes.branch(1).continuation(), twin.branch(1).continuation()
    assert kept is not None
    assert longer is not None
    assert torch.equal(longer.token_ids[: len(kept.token_ids)], kept.token_ids)
    assert longer.rows[0].key.shape[1] == len(longer.token_ids) > len(kept.token_ids)
    lanes.ask([9, 9, 9])
    other = run(lanes)
    assert [text_of(other, lane, 1) for lane in (0, 1)] == [text_of(one, lane, 1) for lane in (0, 1)]


def test_equal_seeds_draw_equal_texts(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    drawn = [text_of(run(Lanes(prefill, [FULL, FULL], 10, Sampling(1.5, seed))), 1) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_bytes_are_those_of_the_tensors(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    lanes = Lanes(prefill, [FULL, HALF], 6, restartable=True)
    run(lanes)
    row = prefill.spec.kv_bytes_per_token_per_layer
    full, half = 4 * 5 * row, 3 * WINDOW.size * row + 5 * row
    forks = 1 if text_of(run(Lanes(prefill, [FULL, HALF], 6)), 0) else 0
    assert lanes.nbytes == full + half * (1 + forks) + 6 * prefill.logits.nbytes


def test_candidates_are_told_as_text(llama: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    use_lighttransfer_attention(llama)
    lm = LoadedModel(llama, byte_tokenizer, describe(llama, "tiny", None, byte_tokenizer))
    lanes = Lanes(lt.run_prefill(lm, tokens(PROMPT)), [FULL, HALF], 3, candidates=10)
    for one in run(lanes):
        assert one.event is not None
        assert len(one.candidates) == 10
        assert one.candidates[0].token_id == one.event.token_id
        assert all(c.text == byte_tokenizer.decode([c.token_id]) for c in one.candidates)
        assert LaneStep.from_json(one.to_json()) == one


def test_what_makes_no_lanes_is_refused(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(PROMPT))
    for settings in ([], [FULL] * 5, [LaneSettings(follow=True)]):
        with pytest.raises(InvalidInputError):
            Lanes(prefill, settings, 4)
    with pytest.raises(InvalidPlanError):
        Lanes(prefill, [FULL, LaneSettings(ConversionPlan((9,)))], 4)
    lanes = Lanes(prefill, [FULL, HALF], 4, restartable=True)
    for index in (0, 2, -1):
        with pytest.raises(InvalidInputError):
            lanes.restart(index, HALF)
    with pytest.raises(InvalidInputError):
        lanes.ask([3])
    for wrong in ([], [97], [-1], [1.7], [[3, 4]], [[3], [4]]):
        with pytest.raises(InvalidPromptError):
            lanes.ask(wrong)  # type: ignore[arg-type]
    for arguments in ({"settings": [FULL, PLANS[0]]}, {"settings": [FULL], "candidates": -1}):
        with pytest.raises(InvalidInputError):
            Lanes(prefill, max_new_tokens=4, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidPlanError):
        lanes.restart(1, LaneSettings(ConversionPlan((9,))))
    assert text_of(run(lanes), 1) == list(lt.compare(prefill, None, PLANS[0], 4).tokens_b), "nothing was lost"
    with pytest.raises(InvalidInputError, match="has answered"):
        lanes.advance()
    lanes.ask(torch.tensor([4, 5]))
    assert run(lanes)
