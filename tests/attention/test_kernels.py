from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lighttransfer_core.attention import kernels
from lighttransfer_core.attention.kernels import attend, merge, with_learned_sink
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.threads import alone


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def exact(
    query: Tensor, key: Tensor, value: Tensor, scale: float, allowed: Tensor | None, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Float64 attention with repeated heads."""
    group = query.shape[1] // key.shape[1]
    key, value = (t.double().repeat_interleave(group, dim=1) for t in (key, value))
    scores = scale * query.double() @ key.transpose(-1, -2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    weights = torch.softmax(scores, dim=-1).nan_to_num(0.0)
    return weights @ value, torch.logsumexp(scores, dim=-1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (5, 5), (5, 12), (7, 33)])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("value_dim", [16, 24])
def test_attend_equals_float64_softmax(rows: int, columns: int, softcap: float | None, value_dim: int) -> None:
    if value_dim > 16:
        value_dim = 8
    query, key, value = random(2, 6, rows, 16), random(2, 2, columns, 16), random(2, 2, columns, value_dim)
    mask = AttentionMask(rows, columns)
    allowed = torch.arange(columns) <= torch.arange(columns - rows, columns)[:, None]
    out, lse = attend(query, key, value, scale=0.7, mask=mask, softcap=softcap)
    expected, expected_lse = exact(query, key, value, 0.7, allowed, softcap)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_attend_in_other_dtypes(dtype: torch.dtype) -> None:
    query, key, value = (random(1, heads, 9, 16, dtype=dtype) for heads in (4, 2, 2))
    out, lse = attend(query, key, value, scale=0.25, mask=AttentionMask(9, 9))
    expected, expected_lse = exact(query, key, value, 0.25, torch.ones(9, 9).tril().bool())
    assert out.dtype == dtype
    loose = 1e-12 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(out.double(), expected, atol=loose, rtol=loose)
    torch.testing.assert_close(lse.double(), expected_lse, atol=max(loose / 10, 1e-12), rtol=1e-3)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("rows", [1, 4])
def test_padding_and_rows_that_see_nothing(rows: int, softcap: float | None) -> None:
    query, key, value = random(3, 4, rows, 16), random(3, 2, 8, 16), random(3, 2, 8, 16)
    visible = torch.arange(8) >= torch.tensor([0, 3, 8])[:, None]
    mask = AttentionMask(rows, 8, visible=visible)
    out, lse = attend(query, key, value, scale=0.5, mask=mask, softcap=softcap)
    causal = torch.arange(8) <= torch.arange(8 - rows, 8)[:, None]
    expected, expected_lse = exact(query, key, value, 0.5, causal & visible[:, None, None], softcap)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-6, rtol=1e-5)
    assert bool((lse[2] == -torch.inf).all())


def test_native_window() -> None:
    query, key, value = random(1, 4, 6, 16), random(1, 2, 20, 16), random(1, 2, 20, 16)
    out, _ = attend(query, key, value, scale=0.5, mask=AttentionMask(6, 20, window=5))
    positions = torch.arange(14, 20)[:, None]
    keys = torch.arange(20)
    expected, _ = exact(query, key, value, 0.5, (keys <= positions) & (keys > positions - 5))
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize("past", [511, 512, 900])
def test_a_chunk_after_a_long_beginning(dtype: torch.dtype, close: float, past: int) -> None:
    columns = past + 40
    query, key, value = random(1, 6, 40, 16, dtype=dtype), *(random(1, 2, columns, 16, dtype=dtype) for _ in "kv")
    out, lse = attend(query, key, value, scale=0.7, mask=AttentionMask(40, columns))
    allowed = torch.arange(columns) <= torch.arange(past, columns)[:, None]
    expected, expected_lse = exact(query, key, value, 0.7, allowed)
    torch.testing.assert_close(out.double(), expected, atol=close, rtol=close)
    torch.testing.assert_close(lse.double(), expected_lse, atol=close, rtol=close)


@pytest.mark.parametrize(("columns", "in_one"), [(1, True), (16, True), (512, False)])
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_to_few_tokens_stays_in_one_thread(
    monkeypatch: pytest.MonkeyPatch, batch: int, columns: int, in_one: bool
) -> None:
    calls: list[int] = []

    def counted(work: Callable[..., tuple[Tensor, Tensor]], *given: object) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return alone(work, *given)

    monkeypatch.setattr(kernels, "alone", counted)
    query, key = random(batch, 9, 9, 64), random(batch, 3, columns, 64)
    out, lse = attend(query, key, key, scale=0.3)
    assert bool(calls) == in_one
    expected, expected_lse = exact(query, key, key, 0.3, None)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-6, rtol=1e-5)


def test_merge_of_disjoint_parts_is_attention_over_their_union() -> None:
    query, key, value = random(2, 4, 3, 16), random(2, 2, 17, 16), random(2, 2, 17, 16)
    parts = [attend(query, key[:, :, s], value[:, :, s], scale=0.5) for s in (slice(0, 6), slice(6, 17))]
    out, lse = merge(*parts)
    whole, whole_lse = attend(query, key, value, scale=0.5)
    torch.testing.assert_close(out, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lse, whole_lse, atol=1e-6, rtol=1e-5)


def test_merge_with_an_empty_part_changes_nothing() -> None:
    query, key, value = random(1, 4, 1, 16), random(1, 2, 5, 16), random(1, 2, 5, 16)
    part = attend(query, key, value, scale=0.5)
    hidden = AttentionMask(1, 5, visible=torch.zeros(1, 5, dtype=torch.bool))
    empty = attend(query, key, value, scale=0.5, mask=hidden)
    assert bool((empty[1] == -torch.inf).all())
    for merged in (merge(part, empty), merge(empty, part)):
        torch.testing.assert_close(merged[0], part[0])
        torch.testing.assert_close(merged[1], part[1])
    assert bool(torch.isfinite(merge(empty, empty)[0]).all())


def test_learned_sink_is_one_more_logit() -> None:
    query, key, value = random(1, 4, 3, 16), random(1, 2, 7, 16), random(1, 2, 7, 16)
    sink = random(4)
    out, lse = with_learned_sink(attend(query, key, value, scale=0.5), sink)
    keys, values = (t.repeat_interleave(2, dim=1) for t in (key, value))
    scores = torch.cat([0.5 * query @ keys.transpose(-1, -2), sink[None, :, None, None].expand(1, 4, 3, 1)], dim=-1)
    torch.testing.assert_close(out, torch.softmax(scores, dim=-1)[..., :-1] @ values, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lse, torch.logsumexp(scores, dim=-1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        (random(1, 4, 0, 16), random(1, 2, 5, 16), random(1, 2, 5, 16)),
        (random(1, 4, 2, 16), random(1, 2, 0, 16), random(1, 2, 0, 16)),
        (random(1, 4, 2, 16), random(1, 3, 5, 16), random(1, 3, 5, 16)),
        (random(2, 4, 2, 16), random(1, 2, 5, 16), random(1, 2, 5, 16)),
        (random(1, 4, 2, 16), random(1, 2, 5, 16), random(1, 2, 6, 16)),
        (random(1, 4, 2, 8), random(1, 2, 5, 16), random(1, 2, 5, 16)),
        (random(1, 4, 2, 16), random(1, 2, 16, 5).transpose(2, 3), random(1, 2, 5, 16)),
    ],
    ids=["no queries", "no keys", "heads", "batch", "lengths", "dimension", "stride"],
)
def test_inputs_that_a_fused_kernel_would_misread_are_refused(query: Tensor, key: Tensor, value: Tensor) -> None:
    with pytest.raises(InvalidInputError):
        attend(query, key, value, scale=1.0)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="mask is for 3 queries"):
        attend(random(1, 2, 2, 8), random(1, 2, 5, 8), random(1, 2, 5, 8), scale=1.0, mask=AttentionMask(3, 5))


@pytest.mark.parametrize("padded", [False, True])
def test_the_blockwise_computation_in_several_blocks(monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    monkeypatch.setattr(kernels, "_BLOCK_SCORES", 3 * 2 * 4 * 20)
    query, key, value = random(2, 4, 10, 16), random(2, 2, 20, 16), random(2, 2, 20, 16)
    visible = torch.arange(20) >= torch.tensor([0, 4])[:, None] if padded else torch.ones(2, 20).bool()
    mask = AttentionMask(10, 20, visible=visible if padded else None)
    out, lse = attend(query, key, value, scale=0.5, mask=mask, softcap=2.0)
    allowed = (torch.arange(20) <= torch.arange(10, 20)[:, None]) & visible[:, None, None]
    expected, expected_lse = exact(query, key, value, 0.5, allowed, 2.0)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-6, rtol=1e-5)
