"""The hybrid cache against one uncached pass whose masks are made by hand."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache

import lighttransfer_core as lt
from lighttransfer_core.attention import attached
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import (
    CacheMisuseError,
    InvalidPlanError,
    InvalidPromptError,
    UnsupportedModelError,
    UnsupportedRequestError,
)
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import make_tiny, tokens
from tests.reference import masked_logits

PLANS = [(), (0,), (1, 3), (0, 1, 2, 3)]
WINDOWS = [Window(2, 9), Window(0, 5), Window(4, 1), Window(3, 100)]


@torch.no_grad()
def run_in_parts(
    model: PreTrainedModel,
    plan: ConversionPlan,
    ids: Tensor,
    parts: list[int],
    prompt_tokens: int,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Logits `[B, T, V]` of consecutive forward passes through one hybrid cache."""
    out, done = [], 0
    with lt.hybrid(model, plan, prompt_tokens=prompt_tokens) as cache:
        for part in parts:
            stop = done + part
            inputs = {"input_ids": ids[:, done:stop], "past_key_values": cache}
            if mask is not None and positions is not None:
                inputs |= {"attention_mask": mask[:, :stop], "position_ids": positions[:, done:stop]}
            out.append(model(**inputs).logits)
            done = stop
    return torch.cat(out, dim=1)


def convertible(model: PreTrainedModel, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the layers that this model lets us convert."""
    with lt.hybrid(model, ConversionPlan()) as cache:
        return tuple(layer for layer in layers if cache.kinds[layer].kind == "full")


def check_against_reference(model: PreTrainedModel, lazy: tuple[int, ...], window: Window) -> None:
    """A prompt of 30 tokens, a follow-up of 13 at once, and 64 single steps."""
    ids = tokens(30 + 13 + 64)
    actual = run_in_parts(model, ConversionPlan(lazy, window), ids, [30, 13] + [1] * 64, 30)
    expected = masked_logits(model, ids, 30, lazy, window)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("layers", PLANS, ids=str)
def test_prompt_follow_up_and_steps_equal_the_reference(
    llama: PreTrainedModel, layers: tuple[int, ...], window: Window
) -> None:
    check_against_reference(llama, layers, window)


@pytest.mark.parametrize("seed", range(3))
def test_random_plans_equal_the_reference_in_every_family(architecture: str, seed: int) -> None:
    model, draw = make_tiny(architecture), random.Random(seed)
    lazy = convertible(model, tuple(draw.sample(range(4), draw.randint(1, 4))))
    check_against_reference(model, lazy, Window(draw.randint(0, 5), draw.randint(1, 50)))


@pytest.mark.parametrize("parts", [[16, 14], [29, 1], [7] * 4 + [2], [1] * 30], ids=str)
def test_a_prompt_in_chunks_is_not_taken_for_follow_ups(llama: PreTrainedModel, parts: list[int]) -> None:
    ids = tokens(50)
    window = Window(2, 5)
    actual = run_in_parts(llama, ConversionPlan((0, 2), window), ids, [*parts, *[1] * 20], 30)
    torch.testing.assert_close(actual, masked_logits(llama, ids, 30, (0, 2), window), atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", [[5], [40], [3, 20], [1, 25, 1, 6]], ids=str)
def test_several_new_tokens_at_once_on_a_cut_cache(llama: PreTrainedModel, parts: list[int]) -> None:
    ids = tokens(30 + sum(parts) + 5)
    window = Window(2, 9)
    actual = run_in_parts(llama, ConversionPlan((0, 1, 3), window), ids, [30, *parts, *[1] * 5], 30)
    torch.testing.assert_close(actual, masked_logits(llama, ids, 30, (0, 1, 3), window), atol=1e-4, rtol=0)


@pytest.mark.parametrize("prompt", [1, 2, 6, 11, 12])
def test_prompts_shorter_than_the_window_fill_it(llama: PreTrainedModel, prompt: int) -> None:
    ids = tokens(prompt + 30)
    window = Window(4, 7)
    actual = run_in_parts(llama, ConversionPlan((0, 2), window), ids, [prompt, 3] + [1] * 27, prompt)
    torch.testing.assert_close(actual, masked_logits(llama, ids, prompt, (0, 2), window), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3"])
@pytest.mark.parametrize("pads", [(0, 3, 17), (0, 24, 28), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("window", [Window(4, 7), Window(0, 6), Window(5, 60)], ids=str)
def test_left_padded_batches(architecture: str, pads: tuple[int, ...], window: Window) -> None:
    """Rows without padding, shorter than the window, and shorter than the sinks."""
    model = make_tiny(architecture)
    ids = tokens(30 + 11 + 20, batch=3)
    mask = (torch.arange(ids.shape[1]) >= torch.tensor(pads)[:, None]).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    lazy = convertible(model, (0, 1, 3))
    actual = run_in_parts(model, ConversionPlan(lazy, window), ids, [30, 11] + [1] * 20, 30, mask, positions)
    expected = masked_logits(model, ids, 30, lazy, window, pads)
    real = mask.bool()
    torch.testing.assert_close(actual[real], expected[real], atol=1e-4, rtol=0)


def test_a_plan_without_lazy_layers_matches_transformers(tiny: PreTrainedModel) -> None:
    ids = tokens(60)
    actual = run_in_parts(tiny, ConversionPlan(), ids, [40] + [1] * 20, 40)
    with torch.no_grad():
        expected = tiny(ids).logits
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_kept_bytes_are_the_formula_and_allocated_bytes_the_storage(llama: PreTrainedModel) -> None:
    per_token = 2 * 2 * 8 * 4
    ids, window = tokens(120), Window(2, 9)
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan((1, 2), window)) as cache:
        llama(ids[:, :80], past_key_values=cache)
        assert cache.layer_nbytes() == (80 * per_token, 11 * per_token, 11 * per_token, 80 * per_token)
        for step in range(80, 120):
            llama(ids[:, step : step + 1], past_key_values=cache)
            kept = ((step + 1) * per_token, 11 * per_token, 11 * per_token, (step + 1) * per_token)
            assert cache.layer_nbytes() == kept
            storages = tuple(
                sum(t.untyped_storage().nbytes() for segment in layer.segments for t in segment.buffers)
                for layer in cache.layers
            )
            assert cache.layer_allocated_nbytes() == storages
            assert all(allocated < 1.25 * kept for allocated, kept in zip(storages, kept, strict=True))
        assert cache.lazy_layers == (1, 2)
        assert cache.seen_tokens == 120


def test_a_cut_layer_owns_small_storage(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan((1,), Window(2, 9))) as cache:
        llama(tokens(200), past_key_values=cache)
        for tensor in cache.layers[1].segments[0].buffers:
            assert tensor.is_contiguous()
            assert tensor.untyped_storage().nbytes() == 2 * 11 * 8 * 4


def test_the_peak_of_a_plan_counts_one_uncut_layer_at_a_time(llama: PreTrainedModel) -> None:
    per_token = 2 * 2 * 8 * 4
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan((0, 1, 2, 3), Window(2, 9))) as cache:
        llama(tokens(200), past_key_values=cache)
        assert cache.peak_nbytes == (200 + 3 * 11) * per_token
        assert sum(cache.layer_nbytes()) == 4 * 11 * per_token


def test_positions_count_tokens_seen_even_if_layer_0_is_cut(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan((0,), Window(2, 5))) as cache:
        llama(tokens(40), past_key_values=cache)
        assert cache.get_seq_length() == 40
        assert cache.get_mask_sizes(3, 0) == (43, 0)
        assert not any(layer.is_sliding for layer in cache.layers)


def test_two_interleaved_requests_equal_solo_runs(llama: PreTrainedModel) -> None:
    plan = ConversionPlan((0, 2), Window(2, 5))
    ids = [tokens(30, seed=1), tokens(30, seed=2)]
    solo = [run_in_parts(llama, plan, x, [20] + [1] * 10, 20) for x in ids]
    with torch.no_grad(), lt.hybrid(llama, plan) as first, lt.hybrid(llama, plan) as second:
        caches, out = (first, second), ([], [])
        for begin, end in [(0, 20), *((step, step + 1) for step in range(20, 30))]:
            for lane in (0, 1):
                out[lane].append(llama(ids[lane][:, begin:end], past_key_values=caches[lane]).logits)
    for lane in (0, 1):
        assert torch.equal(torch.cat(out[lane], dim=1), solo[lane])


def test_a_chunk_across_the_end_of_the_prompt_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan(), prompt_tokens=10) as cache:
        llama(tokens(8), past_key_values=cache)
        with pytest.raises(InvalidPromptError, match="10 tokens, but a chunk ends at 12"):
            llama(tokens(4), past_key_values=cache)


def test_a_cache_outside_its_context_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad():
        with lt.hybrid(llama, ConversionPlan((1,), Window(2, 5))) as cache:
            llama(tokens(20), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="outside of hybrid"):
            llama(tokens(1), past_key_values=cache)


def test_a_forward_that_failed_leaves_the_cache_closed(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache:
        llama(tokens(8), past_key_values=cache)
        with pytest.raises(IndexError):
            llama(torch.tensor([[9999]]), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="outside of hybrid"):
            llama.model(tokens(1), past_key_values=cache)


def test_a_forward_that_broke_off_midway_closes_the_cache_for_good(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache:
        llama(tokens(8), past_key_values=cache)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        handle = llama.model.layers[2].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            llama(tokens(1), past_key_values=cache)
        handle.remove()
        with pytest.raises(CacheMisuseError, match="broke off"):
            llama(tokens(1), past_key_values=cache)


@pytest.mark.parametrize("width", [3, None])
def test_a_mask_that_does_not_cover_all_tokens_is_refused(llama: PreTrainedModel, width: int | None) -> None:
    ids, mask = tokens(8, batch=2), torch.ones(2, 8)
    mask[0, :2] = 0
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan(), prompt_tokens=11) as cache:
        llama(ids, attention_mask=mask, past_key_values=cache)
        later = None if width is None else torch.ones(2, width)
        with pytest.raises(UnsupportedRequestError, match="mask of all tokens"):
            llama(ids[:, :3], attention_mask=later, past_key_values=cache)


def test_a_plan_for_another_shape_of_model_is_refused(llama: PreTrainedModel) -> None:
    scores = lt.score_layers(lt.run_prefill(make_tiny("qwen3"), tokens(40)), Window(2, 9))
    plan = ConversionPlan.from_json(lt.plan_from_scores(scores).to_json())
    with pytest.raises(InvalidPlanError, match=r"\(4, 6, 2, 16\).*\(4, 6, 2, 8\)"), lt.hybrid(llama, plan):
        pass
    with lt.hybrid(make_tiny("qwen3"), plan):
        pass


def test_a_fork_before_the_prompt_has_ended_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan(), prompt_tokens=10) as cache:
        llama(tokens(8), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="forked"):
            cache.fork()


def test_the_cache_does_not_join_the_autograd_graph(llama: PreTrainedModel) -> None:
    with lt.hybrid(llama, ConversionPlan((1,), Window(2, 5))) as cache:
        for _ in range(3):
            llama(tokens(9), past_key_values=cache)
    assert not any(t.requires_grad for layer in cache.layers for s in layer.segments for t in s.buffers)


@pytest.mark.parametrize("part", ["", "q_proj", "k_proj", "v_proj"])
def test_gradients_through_the_cache_are_refused_and_those_without_it_exact(llama: PreTrainedModel, part: str) -> None:
    ids = tokens(9)
    for name, weight in llama.named_parameters():
        weight.requires_grad_(part in name)
    with lt.hybrid(llama, ConversionPlan((1,), Window(2, 5))) as cache:
        logits = llama(ids, past_key_values=cache).logits
        with pytest.raises(UnsupportedRequestError, match="gradients"):
            logits.sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(llama(ids, use_cache=False).logits, logits, atol=1e-5, rtol=0)


def test_double_precision_equals_the_reference(llama: PreTrainedModel) -> None:
    model, ids, plan = llama.double(), tokens(40), ConversionPlan((0, 2), Window(2, 9))
    expected = masked_logits(model, ids, 30, plan.lazy_layers, plan.window)[0, 30:]
    branch = Branch(lt.run_prefill(model, ids[:, :30], chunk_tokens=11), plan)
    torch.testing.assert_close(branch.forward(ids[:, 30:]).double(), expected, atol=1e-5, rtol=0)
    with torch.no_grad(), lt.hybrid(model, plan) as cache:
        model(ids[:, :30], past_key_values=cache)
        actual = model(ids[:, 30:], past_key_values=cache).logits[0]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    for metric in ("lazy_ratio", "reach_effect", "echo"):
        assert lt.score_layers(lt.run_prefill(model, ids), plan.window, 8, metric).informative


def test_autocast_is_refused_and_the_model_alone_is_what_it_was_under_it(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = llama(ids, use_cache=False).logits
        with lt.hybrid(llama, ConversionPlan()) as cache:
            actual = llama(ids, use_cache=False).logits
            with pytest.raises(UnsupportedRequestError, match="autocast"):
                llama(ids, past_key_values=cache)
        with pytest.raises(UnsupportedRequestError, match="autocast"):
            lt.run_prefill(llama, ids)
    assert (actual - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_cache_in_a_part_of_the_model_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache, pytest.raises(CacheMisuseError):
        llama.model(tokens(20), past_key_values=cache)


@pytest.mark.parametrize(
    "mask", [[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], ids=["right padding", "a hole", "an empty row"]
)
def test_padding_that_cannot_be_cut_is_refused(llama: PreTrainedModel, mask: list[int]) -> None:
    refused = pytest.raises(UnsupportedRequestError, match="left padding")
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache, refused:
        llama(tokens(4), attention_mask=torch.tensor([mask]), past_key_values=cache)


def test_padding_that_changes_later_is_refused(llama: PreTrainedModel) -> None:
    ids = tokens(8, batch=2)
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache:
        llama(ids, past_key_values=cache)
        mask = torch.ones(2, 9)
        mask[0, 0] = 0
        with pytest.raises(UnsupportedRequestError, match="padding changed"):
            llama(ids[:, :1], attention_mask=mask, past_key_values=cache)


@pytest.mark.parametrize("chunk", [4, 10, 15])
def test_left_padding_longer_than_a_chunk_of_the_prompt(llama: PreTrainedModel, chunk: int) -> None:
    """A row may be nothing but padding for several chunks."""
    pads, window, ids = (0, 3, 17), Window(2, 6), tokens(30 + 12, batch=3)
    mask = (torch.arange(ids.shape[1]) >= torch.tensor(pads)[:, None]).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    parts = [chunk] * (30 // chunk) + [30 % chunk] * (30 % chunk > 0) + [1] * 12
    actual = run_in_parts(llama, ConversionPlan((0, 1, 3), window), ids, parts, 30, mask, positions)
    expected = masked_logits(llama, ids, 30, (0, 1, 3), window, pads)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=0)


def test_rows_can_be_selected_and_repeated_in_mid_text(llama: PreTrainedModel) -> None:
    ids, order, plan = tokens(40, batch=3), torch.tensor([2, 0]), ConversionPlan((0, 2), Window(2, 9))
    whole = run_in_parts(llama, plan, ids, [30] + [1] * 10, 30)
    with torch.no_grad(), lt.hybrid(llama, plan) as cache:
        llama(ids[:, :30], past_key_values=cache)
        cache.batch_select_indices(order)
        cache.batch_repeat_interleave(2)
        rows = order.repeat_interleave(2)
        later = [llama(ids[rows, step : step + 1], past_key_values=cache).logits for step in range(30, 40)]
    torch.testing.assert_close(torch.cat(later, dim=1), whole[rows, 30:], atol=1e-4, rtol=0)


def test_a_cache_of_another_model_is_refused(llama: PreTrainedModel) -> None:
    twin = copy.deepcopy(llama)
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache, lt.hybrid(twin, ConversionPlan()):
        llama(tokens(8), past_key_values=cache)
        with pytest.raises(CacheMisuseError, match="another model"):
            twin(tokens(1), past_key_values=cache)
        assert llama(tokens(1), past_key_values=cache).logits.shape[1] == 1


def test_a_custom_4d_mask_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan()) as cache, pytest.raises(UnsupportedRequestError):
        llama(tokens(4), attention_mask=torch.zeros(1, 1, 4, 4), past_key_values=cache)


def test_taking_tokens_back_is_refused(llama: PreTrainedModel) -> None:
    with torch.no_grad(), lt.hybrid(llama, ConversionPlan((1,), Window(2, 5))) as cache:
        llama(tokens(20), past_key_values=cache)
        for call in (lambda: cache.crop(-1), cache.reset, cache.activate_past_recording):
            with pytest.raises(UnsupportedRequestError):
                call()


@pytest.mark.parametrize(("layers", "message"), [((4,), "layers 0 to 3"), ((0,), "cannot be converted")])
def test_plans_that_do_not_fit_the_model_are_refused(layers: tuple[int, ...], message: str) -> None:
    model = make_tiny("gemma3")
    with pytest.raises(InvalidPlanError, match=message), lt.hybrid(model, ConversionPlan(layers)):
        pass


def test_other_caches_still_work_on_a_model_with_our_attention(llama: PreTrainedModel) -> None:
    ids = tokens(24)
    with torch.no_grad():
        expected = llama(ids).logits[:, 20:]
        with attached(llama):
            for cache in (DynamicCache(), StaticCache(config=llama.config, max_cache_len=24)):
                llama(ids[:, :20], past_key_values=cache)
                actual = llama(ids[:, 20:], past_key_values=cache).logits
                torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_models_that_share_keys_between_layers_are_refused() -> None:
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    config = Gemma3nTextConfig(
        vocab_size=97,
        vocab_size_per_layer_input=97,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
    )
    with (
        pytest.raises(UnsupportedModelError, match="earlier layers"),
        lt.hybrid(Gemma3nForCausalLM(config).eval(), ConversionPlan()),
    ):
        pass
