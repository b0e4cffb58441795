from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.errors import (
    InvalidInputError,
    InvalidPromptError,
    PrefillMismatchError,
    UnsupportedModelError,
)
from lighttransfer_core.keep import Keep, prefill_nbytes, queries_nbytes
from lighttransfer_core.models import describe
from lighttransfer_core.prefill import prefill_steps
from lighttransfer_core.token_ids import shared_tokens
from tests.conftest import make_tiny, tokens

FIELDS = ("query", "key", "value", "lse", "residual_norm", "residual_cosine", "output")


def test_logits_match_transformers(tiny: PreTrainedModel) -> None:
    ids = tokens(60)
    with torch.no_grad():
        expected = tiny(ids).logits[0, -1]
    torch.testing.assert_close(lt.run_prefill(tiny, ids).logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 7, 16, 59])
def test_any_chunking_equals_one_shot(architecture: str, chunk: int, dtype: torch.dtype) -> None:
    model, ids = make_tiny(architecture, dtype), tokens(60)
    whole, parts = (lt.run_prefill(model, ids, chunk_tokens=size) for size in (60, chunk))
    close = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.05}
    for one, other in zip(whole.records, parts.records, strict=True):
        for name in FIELDS:
            torch.testing.assert_close(getattr(one, name), getattr(other, name), **close)
    torch.testing.assert_close(whole.logits, parts.logits, **close)


def assert_equal_prefills(one: lt.Prefill, other: lt.Prefill) -> None:
    for a, b in zip(one.records, other.records, strict=True):
        for name in FIELDS:
            torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(one.logits, other.logits, atol=2e-5, rtol=1e-4)


def computed(model: PreTrainedModel, ids: torch.Tensor, earlier: lt.Prefill, keep: Keep | None = None) -> int:
    """Tokens that the model reads where an earlier prefill is at hand."""
    read: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _model, _args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    lt.run_prefill(earlier.lm, ids, keep, earlier=earlier)
    handle.remove()
    return sum(read)


@pytest.mark.parametrize("keep", [Keep(), Keep(query_rows=8), Keep(query_rows=25)])
@pytest.mark.parametrize("shared", [1, 30, 44])
def test_what_two_prompts_begin_with_is_taken_over(architecture: str, shared: int, keep: Keep) -> None:
    """Also where the earlier prompt goes on differently, is longer, or is the whole of the new one."""
    model, ids = make_tiny(architecture), tokens(45)
    before = torch.cat([ids[:, :shared], tokens(25, seed=3)], dim=1)
    before[0, min(shared, 69)] = (ids[0, min(shared, 44)] + 1) % 90 + 3
    for earlier in (lt.run_prefill(model, before), lt.run_prefill(model, ids)):
        assert_equal_prefills(lt.run_prefill(model, ids, keep, earlier=earlier), lt.run_prefill(model, ids, keep))
    assert computed(model, ids, lt.run_prefill(model, before), keep) == 45 - shared
    assert computed(model, ids, lt.run_prefill(model, ids), keep) == 1


def test_a_prefill_of_a_beginning_is_the_prefill_cut_off(llama: PreTrainedModel) -> None:
    whole = lt.run_prefill(llama, tokens(60))
    part = lt.run_prefill(llama, tokens(60)[:, :33], earlier=whole)
    assert_equal_prefills(part, lt.run_prefill(llama, tokens(60)[:, :33]))
    assert part.nbytes < whole.nbytes


def test_rows_whose_queries_are_gone_are_computed_again(llama: PreTrainedModel) -> None:
    few = lt.run_prefill(llama, tokens(60), Keep(query_rows=10))
    assert computed(llama, tokens(60), few, Keep(query_rows=4)) == 1
    assert computed(llama, tokens(60), few, Keep(query_rows=20)) == 20
    assert computed(llama, tokens(60), few, Keep()) == 60
    for keep in (Keep(query_rows=4), Keep(query_rows=20), Keep()):
        assert_equal_prefills(
            lt.run_prefill(llama, tokens(60), keep, earlier=few), lt.run_prefill(llama, tokens(60), keep)
        )


def test_a_prefill_of_another_model_is_not_gone_on_from(llama: PreTrainedModel) -> None:
    with pytest.raises(PrefillMismatchError, match="same loaded model"):
        lt.run_prefill(llama, tokens(60), earlier=lt.run_prefill(make_tiny("llama"), tokens(60)))


def test_where_two_prompts_part() -> None:
    assert shared_tokens(tokens(9), tokens(9)) == 9
    assert shared_tokens(tokens(9), tokens(9)[:, :4]) == 4
    assert shared_tokens(tokens(9), torch.zeros(1, 5, dtype=torch.long)) == 0


def test_outputs_are_those_of_the_last_rows_over_all_tokens(architecture: str) -> None:
    """Where the prompt came in chunks, and where the rows were taken over from an earlier prompt."""
    model, ids = make_tiny(architecture), tokens(60)
    expected = lt.run_prefill(model, ids)
    parts = lt.run_prefill(model, ids, chunk_tokens=7)
    taken = lt.run_prefill(model, ids, earlier=expected)
    for prefill in (expected, parts, taken):
        for record in prefill.records:
            assert record.output is not None
            values = record.value.repeat_interleave(record.num_heads // record.value.shape[0], dim=0)
            exact = record.log_weights((28, 60), (0, 60)).exp() @ values
            torch.testing.assert_close(record.output, exact, atol=2e-5, rtol=1e-4)


def test_outputs_of_half_precision_are_not_kept() -> None:
    prefill = lt.run_prefill(make_tiny("llama", torch.bfloat16), tokens(60))
    assert all(record.output is None for record in prefill.records)
    assert prefill.nbytes == prefill_nbytes(prefill.spec, 60)


def test_its_bytes_are_the_storages_and_the_formula(llama: PreTrainedModel) -> None:
    for keep in (Keep(), Keep(query_rows=8)):
        prefill = lt.run_prefill(llama, tokens(60), keep=keep, chunk_tokens=25)
        tensors = [getattr(record, name) for record in prefill.records for name in FIELDS]
        tensors += [prefill.logits, prefill.input_ids]
        assert prefill.nbytes == sum(t.untyped_storage().nbytes() for t in tensors)
        assert prefill.nbytes == sum(t.numel() * t.element_size() for t in tensors)
        assert prefill.nbytes == prefill_nbytes(describe(llama), 60, keep)


def test_it_reports_progress_and_can_be_cancelled_between_chunks(llama: PreTrainedModel) -> None:
    steps = prefill_steps(llama, tokens(60), chunk_tokens=25)
    assert [(p.tokens_done, p.num_tokens) for p in (next(steps), next(steps))] == [(25, 60), (50, 60)]
    steps.close()
    assert llama.config._attn_implementation == "eager"
    assert not llama._forward_pre_hooks


def test_two_interleaved_prefills_equal_solo_ones_and_leave_no_grad_mode_alone(llama: PreTrainedModel) -> None:
    solo = [lt.run_prefill(llama, tokens(60, seed=s), chunk_tokens=16) for s in (1, 2)]
    runs = [prefill_steps(llama, tokens(60, seed=s), chunk_tokens=16) for s in (1, 2)]
    results: list[lt.Prefill] = []
    while len(results) < 2:
        for run in runs:
            try:
                next(run)
                assert torch.is_grad_enabled()
                assert not torch.is_inference_mode_enabled()
            except StopIteration as end:
                results.append(end.value)
    for one, other in zip(solo, results, strict=True):
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.records[2].query, other.records[2].query)


def test_chunks_sized_by_time_cover_the_prompt(llama: PreTrainedModel) -> None:
    steps = list(prefill_steps(llama, tokens(500), chunk_s=1e-6))
    assert steps[0].tokens_done == 256
    assert [b.tokens_done - a.tokens_done for a, b in itertools.pairwise(steps)] == [64, 64, 64, 52]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "empty"),
        (torch.zeros(2, 5, dtype=torch.long), r"\[1, T\]"),
        (torch.zeros(5, dtype=torch.long), r"\[1, T\]"),
        (torch.zeros(1, 5), "integers"),
        (torch.full((1, 5), 97), "between 0 and 96"),
        (torch.full((1, 5), -1), "between 0 and 96"),
        (torch.zeros(1, 513, dtype=torch.long), "512 positions"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(llama: PreTrainedModel, ids: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidPromptError, match=message):
        lt.run_prefill(llama, ids)


@pytest.mark.parametrize("rows", [0, -1, 2.5])
def test_keeping_no_queries_is_refused(rows: object) -> None:
    with pytest.raises(InvalidInputError, match="query_rows"):
        lt.Keep(query_rows=rows)


@pytest.mark.parametrize("chunk", [-5, 2.5])
def test_chunks_that_are_none_are_refused(llama: PreTrainedModel, chunk: object) -> None:
    with pytest.raises(InvalidInputError, match="chunk_tokens"):
        lt.run_prefill(llama, tokens(8), chunk_tokens=chunk)


def test_layers_without_attention_are_refused_with_a_reason() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    config = Lfm2Config(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "full_attention"],
        conv_L_cache=3,
        max_position_embeddings=128,
    )
    model = Lfm2ForCausalLM(config).eval()
    with pytest.raises(UnsupportedModelError, match="running state"):
        lt.run_prefill(model, tokens(20))
    ids = tokens(40)
    arguments = {"do_sample": False, "max_new_tokens": 8, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(ids, **arguments)
    with lt.hybrid(model, lt.ConversionPlan((1,), lt.Window(4, 60))) as cache:
        assert torch.equal(model.generate(ids, past_key_values=cache, **arguments), expected)
    assert cache.lazy_layers == (1,)


def test_whole_layers_beside_last_rows(llama: PreTrainedModel) -> None:
    ids, keep = tokens(40), lt.Keep(query_rows=8, layers=(1, 3))
    part, full = lt.run_prefill(llama, ids, keep, chunk_tokens=7), lt.run_prefill(llama, ids)
    assert [record.first_row for record in part.records] == [32, 0, 32, 0]
    assert part.nbytes == prefill_nbytes(part.spec, 40, keep)
    np.testing.assert_allclose(part.attention(1, 2), full.attention(1, 2), atol=1e-6)
    scores = [lt.score_layers(prefill, lt.Window(2, 9), 8).values for prefill in (part, full)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_queries_in_the_hosts_memory_change_no_number(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    host, full = lt.run_prefill(llama, ids, lt.Keep(host=True)), lt.run_prefill(llama, ids)
    assert all(record.query.device.type == record.lse.device.type == "cpu" for record in host.records)
    np.testing.assert_array_equal(host.attention(1, 2), full.attention(1, 2))
    assert host.nbytes == full.nbytes == prefill_nbytes(host.spec, 40), "on a CPU the host is the device"
    on_device = dataclasses.replace(host.spec, device="cuda:0")
    without = prefill_nbytes(on_device, 40) - prefill_nbytes(on_device, 40, lt.Keep(host=True))
    assert without == queries_nbytes(on_device, 40, lt.Keep()) == 4 * (40 * (6 * (8 * 4 + 4) + 8) + 32 * 6 * 8 * 4)


def test_a_record_counts_what_lies_on_its_own_device(llama: PreTrainedModel) -> None:
    record = lt.run_prefill(llama, tokens(40)).records[0]
    elsewhere = dataclasses.replace(record, query=record.query.to("meta"), lse=record.lse.to("meta"))
    assert record.nbytes - elsewhere.nbytes == 40 * 6 * (8 * 4 + 4)


@pytest.mark.parametrize("arguments", [{"lm": "smollm2"}, {"keep": "all"}])
def test_what_is_no_model_or_nothing_to_keep_is_refused(llama: PreTrainedModel, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        lt.run_prefill(**{"lm": llama, "input_ids": tokens(9), **arguments})
