"""`hybrid(...)` around transformers' own `generate` and `pipeline`."""

from __future__ import annotations

import copy
import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

import lighttransfer_core as lt
from lighttransfer_core.errors import (
    CacheMisuseError,
    InvalidInputError,
    InvalidPromptError,
    InvalidWindowError,
    ShortPromptWarning,
    UnsupportedRequestError,
)
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny, tokens
from tests.reference import masked_logits

PLAN = ConversionPlan((0, 2), Window(2, 9))


def greedy_reference(model: PreTrainedModel, ids: Tensor, plan: ConversionPlan, new: int) -> Tensor:
    """Greedy continuation from uncached passes with hand-made masks."""
    prompt = ids.shape[1]
    for _ in range(new):
        logits = masked_logits(model, ids, prompt, plan.lazy_layers, plan.window)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids


@torch.no_grad()
def generate(model: PreTrainedModel, ids: Tensor, **kwargs: object) -> Tensor:
    kwargs = {"do_sample": False, "attention_mask": torch.ones_like(ids), "max_new_tokens": 12, **kwargs}
    return model.generate(ids, **kwargs)


def test_greedy_with_the_yielded_cache(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    with lt.hybrid(llama, PLAN) as cache:
        out = generate(llama, ids, past_key_values=cache)
    assert torch.equal(out, greedy_reference(llama, ids, PLAN, 12))
    assert cache.lazy_layers == (0, 2)


def test_each_call_without_a_cache_gets_a_fresh_one(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, PLAN):
        for seed in (1, 2):
            ids = tokens(40, seed=seed)
            assert torch.equal(generate(llama, ids), greedy_reference(llama, ids, PLAN, 12))
    ids = tokens(40, seed=1)
    assert torch.equal(generate(llama, ids), greedy_reference(llama, ids, ConversionPlan(), 12))
    assert "generate" not in vars(llama)


@pytest.mark.parametrize("chunk", [7, 13, 39, 64])
def test_chunked_prefill_in_generate(llama: PreTrainedModel, chunk: int) -> None:
    ids = tokens(40)
    with lt.hybrid(llama, PLAN):
        out = generate(llama, ids, prefill_chunk_size=chunk)
    assert torch.equal(out, greedy_reference(llama, ids, PLAN, 12))


def test_a_follow_up_turn_on_the_same_cache(llama: PreTrainedModel) -> None:
    first = tokens(40)
    with lt.hybrid(llama, PLAN) as cache:
        answer = generate(llama, first, past_key_values=cache)
        second = torch.cat([answer, tokens(15, seed=5)], dim=1)
        actual = generate(llama, second, past_key_values=cache)
    expected = second
    for _ in range(12):
        logits = masked_logits(llama, expected, 40, PLAN.lazy_layers, PLAN.window)
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(actual, expected)


def test_beam_search_equals_beam_search_over_the_reference(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    with lt.hybrid(llama, PLAN):
        actual = generate(llama, ids, num_beams=3, max_new_tokens=6)
    beams = [(0.0, ids)]
    for _ in range(6):
        grown = []
        for score, text in beams:
            logits = masked_logits(llama, text, 40, PLAN.lazy_layers, PLAN.window)
            logprobs = torch.log_softmax(logits[0, -1], dim=-1)
            for token in logprobs.topk(6).indices:
                grown.append((score + float(logprobs[token]), torch.cat([text, token.view(1, 1)], dim=1)))
        beams = sorted(grown, key=lambda beam: -beam[0])[:3]
    assert torch.equal(actual, beams[0][1])


def test_sampling_runs_and_is_reproducible(llama: PreTrainedModel) -> None:
    ids, outs = tokens(40), []
    for _ in range(2):
        torch.manual_seed(11)
        with lt.hybrid(llama, PLAN):
            outs.append(generate(llama, ids, do_sample=True))
    assert torch.equal(*outs)


def test_a_left_padded_batch_equals_its_rows(llama: PreTrainedModel) -> None:
    rows = [tokens(length, seed=length) for length in (40, 33, 12)]
    batch, mask = torch.zeros(3, 40, dtype=torch.long), torch.zeros(3, 40, dtype=torch.long)
    for row, ids in enumerate(rows):
        batch[row, 40 - ids.shape[1] :] = ids
        mask[row, 40 - ids.shape[1] :] = 1
    with lt.hybrid(llama, PLAN):
        together = generate(llama, batch, attention_mask=mask)
        alone = [generate(llama, ids) for ids in rows]
    for row, ids in enumerate(rows):
        assert torch.equal(together[row, 40:], alone[row][0, ids.shape[1] :])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_model": make_tiny("llama")},
        {"use_cache": False},
        {"past_key_values": "static"},
    ],
    ids=lambda kwargs: next(iter(kwargs)) + str(next(iter(kwargs.values())))[:6],
)
def test_what_cannot_be_exact_is_refused_by_name(llama: PreTrainedModel, kwargs: dict[str, object]) -> None:
    name = next(iter(kwargs))
    if kwargs[name] == "static" and name == "past_key_values":
        kwargs = {name: StaticCache(config=llama.config, max_cache_len=64)}
        name = "StaticCache"
    with lt.hybrid(llama, PLAN), pytest.raises(UnsupportedRequestError, match=name):
        generate(llama, tokens(20), **kwargs)


def test_a_used_cache_is_refused_for_another_prompt(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, PLAN) as cache:
        generate(llama, tokens(20, seed=1), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="another prompt"):
            generate(llama, tokens(50, seed=2), past_key_values=cache)


def test_a_call_that_was_broken_off_is_told_from_another_prompt(llama: PreTrainedModel) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with lt.hybrid(llama, PLAN) as cache:
        handle = llama.model.layers[2].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate(llama, tokens(40), past_key_values=cache)
        handle.remove()
        with pytest.raises(CacheMisuseError, match="broke off"):
            generate(llama, tokens(40), past_key_values=cache)


def test_a_cache_of_beams_is_refused_for_a_follow_up_by_its_rows(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, PLAN) as cache:
        answer = generate(llama, tokens(20), num_beams=3, past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="holds 3 rows and the prompt has 1"):
            generate(llama, torch.cat([answer, tokens(4)], dim=1), past_key_values=cache)


def test_a_deep_copy_made_inside_a_context_generates_and_continues(llama: PreTrainedModel) -> None:
    first = tokens(40)
    with lt.hybrid(llama, PLAN):
        twin = copy.deepcopy(llama)
    assert torch.equal(generate(twin, first), greedy_reference(llama, first, ConversionPlan(), 12))
    with lt.hybrid(twin, PLAN) as cache:
        answer = generate(twin, first, past_key_values=cache)
        assert torch.equal(answer, greedy_reference(llama, first, PLAN, 12))
        generate(twin, torch.cat([answer, tokens(3)], dim=1), past_key_values=cache)


def test_a_bare_model_decodes_in_several_threads_at_once(llama: PreTrainedModel) -> None:
    prefills = [lt.run_prefill(llama, tokens(40, seed=seed)) for seed in range(4)]

    def texts(prefill: lt.Prefill) -> list[int]:
        return [event.token_id for event in lt.decode(prefill, PLAN, 24)]

    alone = [texts(prefill) for prefill in prefills]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(texts, prefills)) == alone
    assert llama.config._attn_implementation != "lighttransfer"


def test_a_loaded_model_in_place_of_its_model_is_refused(llama: PreTrainedModel) -> None:
    loaded = lt.run_prefill(llama, tokens(8)).lm
    with pytest.raises(InvalidInputError, match=r"give its \.model"), lt.hybrid(loaded, PLAN):
        pass


@pytest.mark.parametrize(
    ("choice", "error"), [({"last": 0}, InvalidInputError), ({"window": (4, 9)}, InvalidWindowError)], ids=str
)
def test_on_the_fly_refuses_what_it_cannot_ask(choice: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match="give"):
        lt.OnTheFly(**choice)


@pytest.mark.parametrize(("name", "value"), [("prompt_lookup_num_tokens", 3), ("use_cache", False)])
def test_the_models_own_settings_are_checked_too(llama: PreTrainedModel, name: str, value: object) -> None:
    setattr(llama.generation_config, name, value)
    with lt.hybrid(llama, PLAN), pytest.raises(UnsupportedRequestError, match=name):
        generate(llama, tokens(20))


def test_a_cache_that_cannot_tell_its_prompt_is_refused_for_a_follow_up(llama: PreTrainedModel) -> None:
    ids = tokens(20)
    with torch.no_grad(), lt.hybrid(llama, PLAN) as cache:
        llama(inputs_embeds=llama.get_input_embeddings()(ids), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="another prompt"):
            generate(llama, tokens(30), past_key_values=cache)


def test_the_same_prompt_again_on_a_used_cache_is_refused(llama: PreTrainedModel) -> None:
    ids = tokens(20)
    with torch.no_grad(), lt.hybrid(llama, PLAN) as cache:
        llama(ids, past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="another prompt"):
            generate(llama, ids, past_key_values=cache)


def test_a_stated_prompt_length_that_is_wrong_is_refused(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, PLAN, prompt_tokens=100) as cache, pytest.raises(InvalidPromptError, match="100 tokens"):
        generate(llama, tokens(40), past_key_values=cache)


def test_a_call_that_failed_before_the_prompt_leaves_the_cache_as_new(llama: PreTrainedModel) -> None:
    ids = tokens(20)
    with lt.hybrid(llama, PLAN) as cache:
        with pytest.raises(ValueError, match="bogus"):
            generate(llama, tokens(40), past_key_values=cache, bogus=1)
        assert torch.equal(generate(llama, ids, past_key_values=cache), greedy_reference(llama, ids, PLAN, 12))
    assert cache.lazy_layers == (0, 2)


def test_no_cache_at_all_is_a_fresh_one(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    with lt.hybrid(llama, PLAN):
        assert torch.equal(generate(llama, ids, past_key_values=None), greedy_reference(llama, ids, PLAN, 12))


def test_contexts_may_end_in_any_order(llama: PreTrainedModel) -> None:
    first, second = lt.hybrid(llama, ConversionPlan()), lt.hybrid(llama, PLAN)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    ids = tokens(40)
    assert torch.equal(generate(llama, ids), greedy_reference(llama, ids, PLAN, 12))
    second.__exit__(None, None, None)
    assert "generate" not in vars(llama)
    assert llama.config._attn_implementation == "eager"
    assert not llama._forward_pre_hooks


def test_something_that_is_not_a_plan_is_refused(llama: PreTrainedModel) -> None:
    with pytest.raises(InvalidInputError, match="not a plan"), lt.hybrid(llama, (1, 2)):
        pass


@pytest.mark.parametrize("keep_full", [0.0, 0.25, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("metric", ["lazy_ratio", "residual_change_worst"])
@pytest.mark.parametrize("chunk", [None, 13])
def test_on_the_fly_equals_the_offline_ranking(
    architecture: str, keep_full: float, metric: str, chunk: int | None
) -> None:
    model, ids, window = make_tiny(architecture), tokens(60), Window(2, 9)
    with lt.hybrid(model, lt.OnTheFly(keep_full, window, last=8, metric=metric)) as cache:
        generate(model, ids, past_key_values=cache, prefill_chunk_size=chunk, max_new_tokens=2)
    prefill = lt.run_prefill(model, ids)
    plan = lt.plan_from_scores(lt.score_layers(prefill, window, last=8, metric=metric), keep_full)
    assert cache.lazy_layers == plan.lazy_layers


def test_on_the_fly_never_holds_more_than_one_full_layer_too_many(llama: PreTrainedModel) -> None:
    per_token = 2 * 2 * 8 * 4
    with torch.no_grad(), lt.hybrid(llama, lt.OnTheFly(0.25, Window(2, 9), last=8)) as cache:
        llama(tokens(200), past_key_values=cache)
    assert len(cache.lazy_layers) == 3
    assert cache.peak_nbytes == (2 * 200 + 2 * 11) * per_token


@pytest.mark.parametrize("keep_full", [0.25, 0.5])
def test_on_the_fly_by_the_storage_of_live_tensors(llama: PreTrainedModel, keep_full: float) -> None:
    """At most one layer more than stays full is alive after each layer's attention, by the tensors themselves."""
    alive: list[int] = []

    def count(*_: object) -> None:
        gc.collect()
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (1, 2, 211, 8)]
        alive.append(len({t.untyped_storage().data_ptr() for t in tensors if t.untyped_storage().nbytes() >= 13504}))

    with torch.no_grad(), lt.hybrid(llama, lt.OnTheFly(keep_full, Window(2, 9), last=8)) as cache:
        for layer in llama.model.layers:
            layer.mlp.register_forward_pre_hook(count)
        llama(tokens(211), past_key_values=cache)
    full = round(4 * keep_full)
    assert alive == [2 * min(layer + 1, full) for layer in range(4)]
    assert max(alive) <= 2 * (full + 1)


def test_on_the_fly_in_a_padded_batch_averages_the_rows(llama: PreTrainedModel) -> None:
    window, rows = Window(2, 9), [tokens(40, seed=1), tokens(25, seed=2)]
    batch, mask = torch.cat([rows[0], torch.zeros(1, 40, dtype=torch.long)]), torch.ones(2, 40, dtype=torch.long)
    batch[1, 15:], mask[1, :15] = rows[1][0], 0
    with lt.hybrid(llama, lt.OnTheFly(0.5, window, last=8)) as cache:
        generate(llama, batch, attention_mask=mask, past_key_values=cache, max_new_tokens=1)
    scores = [lt.score_layers(lt.run_prefill(llama, ids), window, last=8) for ids in rows]
    assert cache.lazy_layers == lt.plan_from_scores(lt.aggregate_scores(scores), 0.5).lazy_layers


def test_on_the_fly_leaves_a_short_prompt_alone_and_says_so(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, lt.OnTheFly(0.5, Window(4, 60))) as cache, pytest.warns(ShortPromptWarning, match="64"):
        generate(llama, tokens(20), past_key_values=cache)
    assert cache.lazy_layers == ()


def test_pipelines_work_unchanged(llama: PreTrainedModel, byte_tokenizer: object) -> None:
    from transformers import pipeline

    text = "a long enough prompt for a window of eleven tokens"
    with warnings.catch_warnings():
        # The pipeline's own remarks about generation defaults are not ours to judge.
        warnings.simplefilter("ignore")
        generator = pipeline("text-generation", model=llama, tokenizer=byte_tokenizer, device="cpu")
        with lt.hybrid(llama, PLAN):
            answer = generator(text, max_new_tokens=6, do_sample=False, return_full_text=False)[0]["generated_text"]
    ids = torch.tensor([byte_tokenizer.encode(text)])
    expected = greedy_reference(llama, ids, PLAN, 6)[0, ids.shape[1] :]
    assert answer == byte_tokenizer.decode(expected, skip_special_tokens=True)
