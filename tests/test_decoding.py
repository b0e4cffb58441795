from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attention_layers
from lighttransfer_core.decoding import Branch, Sampler, TextStream
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError
from lighttransfer_core.models import LoadedModel, describe
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny, tokens
from tests.reference import masked_logits

WINDOW = Window(2, 9)


def lazy_of(model: PreTrainedModel, *layers: int) -> tuple[int, ...]:
    kinds = attention_layers(model.config)
    return tuple(layer for layer in layers if kinds[layer].kind == "full")


def test_a_branch_equals_the_reference_token_by_token(tiny: PreTrainedModel) -> None:
    ids, lazy = tokens(30 + 13 + 64), lazy_of(tiny, 0, 1, 3)
    branch = Branch(lt.run_prefill(tiny, ids[:, :30], chunk_tokens=11), ConversionPlan(lazy, WINDOW))
    parts = [branch.forward(ids[:, 30:43]), *(branch.forward(ids[:, t : t + 1]) for t in range(43, 107))]
    expected = masked_logits(tiny, ids, 30, lazy, WINDOW)[0, 30:]
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-4, rtol=0)


def test_the_first_token_is_the_full_models_for_every_plan(tiny: PreTrainedModel) -> None:
    prefill = lt.run_prefill(tiny, tokens(40))
    with torch.no_grad():
        expected = int(tiny(prefill.input_ids).logits[0, -1].argmax())
    for plan in (
        None,
        ConversionPlan(lazy_of(tiny, 1), WINDOW),
        ConversionPlan(lazy_of(tiny, 0, 1, 2, 3), Window(0, 1)),
    ):
        assert next(iter(lt.decode(prefill, plan))).token_id == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plan_without_lazy_layers_is_no_plan_to_the_bit(architecture: str, dtype: torch.dtype) -> None:
    prefill = lt.run_prefill(make_tiny(architecture, dtype), tokens(40))
    runs = [[(e.token_id, e.logprob) for e in lt.decode(prefill, plan, 20)] for plan in (None, ConversionPlan())]
    assert runs[0] == runs[1]


def test_decode_is_generate(tiny: PreTrainedModel) -> None:
    ids = tokens(40)
    expected = tiny.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)[0, 40:]
    assert [event.token_id for event in lt.decode(lt.run_prefill(tiny, ids), None, 20)] == expected.tolist()


def test_events_carry_the_models_own_log_probability_and_the_text(llama: PreTrainedModel, byte_tokenizer: Any) -> None:
    ids = tokens(40)
    prefill = lt.run_prefill(LoadedModel(llama, byte_tokenizer, describe(llama)), ids)
    events = list(lt.decode(prefill, None, 10))
    text = torch.tensor([[event.token_id for event in events]])
    with torch.no_grad():
        logprobs = llama(torch.cat([ids, text], dim=1)).logits[0, 39:-1].log_softmax(-1)
    expected = logprobs.gather(1, text.T)[:, 0]
    torch.testing.assert_close(torch.tensor([e.logprob for e in events]), expected, atol=1e-4, rtol=0)
    assert "".join(e.text for e in events) == byte_tokenizer.decode(text[0], skip_special_tokens=True)


def test_a_follow_up_may_use_the_last_position_and_none_beyond(llama: PreTrainedModel) -> None:
    branch = Branch(lt.run_prefill(llama, tokens(500)))
    assert branch.fork().forward(tokens(12)).shape == (12, 97)
    with pytest.raises(InvalidPromptError, match="512 positions"):
        branch.forward(tokens(13))


def test_kv_bytes_are_the_formula_at_every_step(llama: PreTrainedModel) -> None:
    per_token = 2 * 2 * 8 * 4
    events = list(lt.decode(lt.run_prefill(llama, tokens(40)), ConversionPlan((1, 2), WINDOW), 30))
    for event in events:
        full = (40 + event.step) * per_token
        assert event.kv_bytes == (full, 11 * per_token, 11 * per_token, full)
        assert event.latency_s > 0


def test_branches_share_the_prompt_and_do_not_touch_it(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(40))
    before = [record.key.clone() for record in prefill.records]
    one, two = Branch(prefill), Branch(prefill, ConversionPlan((1,), WINDOW))
    for branch in (one, two):
        branch.forward(tokens(5, seed=3))
        assert branch.cache.layers[0].segments[0].key.data_ptr() == prefill.records[0].key.data_ptr()
    per_token = 2 * 2 * 8 * 4
    assert one.cache.layer_own_nbytes() == (5 * per_token,) * 4
    assert two.cache.layer_own_nbytes()[1] == 11 * per_token
    one.cache.reorder_cache(torch.tensor([0, 0]))
    assert one.cache.layer_own_nbytes() == one.cache.layer_nbytes() == (2 * 45 * per_token,) * 4
    for record, kept in zip(prefill.records, before, strict=True):
        assert torch.equal(record.key, kept)


def test_a_fork_goes_its_own_way(llama: PreTrainedModel) -> None:
    prefill, plan = lt.run_prefill(llama, tokens(40)), ConversionPlan((0, 2), WINDOW)
    branch = Branch(prefill, plan)
    branch.forward(tokens(6, seed=1))
    fork = branch.fork()
    fork.forward(tokens(20, seed=2))
    again = Branch(prefill, plan)
    again.forward(tokens(6, seed=1))
    assert torch.equal(branch.forward(tokens(3, seed=4)), again.forward(tokens(3, seed=4)))


def test_interleaved_decoding_equals_solo(llama: PreTrainedModel) -> None:
    prefill, plans = lt.run_prefill(llama, tokens(40)), (None, ConversionPlan((0, 2), WINDOW))
    solo = [[e.token_id for e in lt.decode(prefill, plan, 12)] for plan in plans]
    both = list(zip(*(lt.decode(prefill, plan, 12) for plan in plans), strict=True))
    assert [[pair[lane].token_id for pair in both] for lane in (0, 1)] == solo


def test_sampling_is_seeded_and_greedy_is_the_limit(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(40))
    draws = {seed: [e.token_id for e in lt.decode(prefill, None, 12, temperature=5.0, seed=seed)] for seed in (1, 2)}
    assert draws[1] == [e.token_id for e in lt.decode(prefill, None, 12, temperature=5.0, seed=1)]
    assert draws[1] != draws[2]
    for temperature in (1e-4, 1e-300):
        cold = [e.token_id for e in lt.decode(prefill, None, 12, temperature=temperature)]
        assert cold == [e.token_id for e in lt.decode(prefill, None, 12)]


def test_it_stops_after_the_end_of_text(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(40))
    ids = [e.token_id for e in lt.decode(prefill, None, 12)]
    llama.generation_config.eos_token_id = ids[3]
    assert [e.token_id for e in lt.decode(prefill, None, 12)] == ids[: ids.index(ids[3]) + 1]
    assert [e.token_id for e in lt.decode(prefill, None, 12, stop_at_eos=False)] == ids


def test_text_past_the_models_positions_is_refused(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(510))
    with pytest.raises(InvalidPromptError, match="512 positions"):
        list(lt.decode(prefill, None, 10))


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_numbers_of_tokens_that_make_no_sense_are_refused(llama: PreTrainedModel, count: object) -> None:
    with pytest.raises(InvalidInputError, match="max_new_tokens"):
        lt.decode(lt.run_prefill(llama, tokens(8)), None, count)


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_temperatures_that_make_no_sense_are_refused(temperature: float) -> None:
    with pytest.raises(InvalidInputError, match="temperature"):
        Sampler(temperature)


def test_what_is_no_plan_is_refused_before_the_first_step(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(8))
    for plan in (lt.OnTheFly(), [], (1, 2)):
        with pytest.raises(InvalidInputError, match="not a plan"):
            lt.decode(prefill, plan)


def test_plans_that_do_not_fit_are_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(InvalidPlanError, match="layers 0 to 3"):
        Branch(lt.run_prefill(llama, tokens(8)), ConversionPlan((9,)))


class SplitCharacters:
    """A tokenizer whose tokens are single bytes, so that a character may span several."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_text_is_held_back_until_a_character_is_whole() -> None:
    stream, text = TextStream(SplitCharacters()), "naïve — 数据 🙂 done, and a tail that is longer than the context"
    pieces = [stream.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert all("�" not in piece for piece in pieces)


@pytest.mark.parametrize("seed", [1.5, None, -1, 2**63])
def test_seeds_that_are_none_are_refused(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match="seed"):
        Sampler(1.0, seed)
