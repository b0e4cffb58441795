from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lighttransfer_core.attention import few_rows, kernels
from lighttransfer_core.attention.kernels import attend, attend_all, merge
from lighttransfer_core.attention.masks import AttentionMask
from tests.attention.test_kernels import random

HALVES = [torch.bfloat16, torch.float16]
Stretch = tuple[Tensor, Tensor]


def exact(query: Tensor, stretches: Sequence[Stretch], scale: float) -> tuple[Tensor, Tensor]:
    """Float64 attention with repeated heads."""
    key, value = (torch.cat([stretch[side] for stretch in stretches], dim=2).double() for side in (0, 1))
    group = query.shape[1] // key.shape[1]
    scores = scale * query.double() @ key.repeat_interleave(group, dim=1).transpose(-1, -2)
    return scores.softmax(dim=-1) @ value.repeat_interleave(group, dim=1), scores.logsumexp(dim=-1)


def check(query: Tensor, stretches: Sequence[Stretch], scale: float = 0.4) -> None:
    assert few_rows.can_attend(query, stretches)
    out, lse = few_rows.attend(query, stretches, scale)
    expected, expected_lse = exact(query, stretches, scale)
    assert out.dtype == query.dtype
    assert lse.dtype == torch.float32
    assert out.is_contiguous()
    # the output is rounded once, at the end
    close = 2e-6 if query.dtype == torch.float32 else torch.finfo(query.dtype).eps
    torch.testing.assert_close(out.double(), expected, atol=close, rtol=max(close, 1e-5))
    torch.testing.assert_close(lse.double(), expected_lse, atol=4e-6, rtol=1e-5)


@pytest.fixture(params=[1, 2, 3, 7], ids=lambda threads: f"{threads} threads")
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many, each of which takes any amount of work."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    monkeypatch.setattr(few_rows, "_PART_NBYTES", 1)
    return int(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "queries"), [(1, 1, 1, 1), (1, 9, 3, 1), (2, 5, 5, 1), (3, 6, 2, 5), (1, 2, 1, 8)]
)
@pytest.mark.parametrize("tokens", [1, 3, 64, 65, 333])
def test_few_rows_equal_float64_softmax(
    threads: int, dtype: torch.dtype, batch: int, heads: int, kv_heads: int, queries: int, tokens: int
) -> None:
    query, key = random(batch, heads, queries, 24, dtype=dtype), random(batch, kv_heads, tokens, 24, dtype=dtype)
    check(query, [(key, random(batch, kv_heads, tokens, 40, dtype=dtype))])


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("rows", range(1, 17))
def test_any_number_of_queries_and_any_size_of_heads(dtype: torch.dtype, rows: int) -> None:
    """Queries are taken up to three at a time, and numbers by registers: what is left over counts as well."""
    for dim, value_dim in [(1, 3), (8, 16), (37, 24), (64, 80), (96, 64), (130, 47)]:
        query, key = random(2, 2 * rows, 1, dim, dtype=dtype), random(2, 2, 67, dim, dtype=dtype)
        check(query, [(key, random(2, 2, 67, value_dim, dtype=dtype))])


def test_what_lies_beyond_the_keys_is_not_seen() -> None:
    """The last block reads ahead, and scores four keys at a time."""
    for tokens in range(1, 70):
        buffer = random(1, 1, tokens + 70, 16)
        buffer[:, :, tokens:] = torch.nan
        key = buffer[:, :, :tokens]
        check(random(1, 3, 1, 16), [(key, key)])


def test_stretches_are_read_where_they_lie(threads: int) -> None:
    """In buffers that are longer, transposed, and shared by all sequences."""
    buffer = random(1, 3, 100, 16)
    shared = buffer[:, :, :70].expand(4, -1, -1, -1)
    transposed = random(4, 9, 3, 16).transpose(1, 2)
    wide = random(4, 3, 5, 48)[..., 16:32]
    check(random(4, 3, 2, 16), [(shared, shared), (transposed, transposed), (wide, wide)])


def test_scores_far_apart_neither_overflow_nor_vanish(threads: int) -> None:
    query, key = random(1, 2, 3, 16), random(1, 2, 200, 16)
    check(query * 30, [(key * 30, key)])
    falling = key * torch.linspace(40, 0, 200)[:, None]
    check(query, [(falling, key)])
    check(query, [(falling.flip(2), key)])


def test_half_precision_is_read_exactly() -> None:
    """Every number of the type, those below the normal ones included, as the only value."""
    for dtype in HALVES:
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        every = every[every.isfinite()]
        value = every.view(1, 1, 1, -1)
        query = torch.zeros(1, 1, 1, 8, dtype=dtype)
        out, _ = few_rows.attend(query, [(query, value)], 1.0)
        assert torch.equal(out.view(-1), every)


def test_nan_stays_nan() -> None:
    key = random(1, 1, 10, 8)
    key[0, 0, 3, 2] = torch.nan
    out, _ = few_rows.attend(random(1, 1, 1, 8), [(key, random(1, 1, 10, 8))], 1.0)
    assert out.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_loops_serve_what_has_no_mask(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    calls: list[int] = []
    loops = few_rows.attend
    monkeypatch.setattr(few_rows, "attend", lambda *given: calls.append(1) or loops(*given))
    query, key = random(2, 6, 1, 16, dtype=dtype), random(2, 2, 50, 16, dtype=dtype)
    attend(query, key, key, scale=0.4, mask=AttentionMask(1, 50))
    assert not calls
    out, lse = attend(query, key, key, scale=0.4)
    assert calls == [1]
    expected, expected_lse = exact(query, [(key, key)], 0.4)
    torch.testing.assert_close(out.double(), expected, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("queries", [1, 4])
def test_stretches_with_masks_are_merged(queries: int) -> None:
    query, first, second = random(2, 6, queries, 16), random(2, 2, 50, 16), random(2, 2, 9, 16)
    seen = torch.rand(2, 1, queries, 50, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = AttentionMask(queries, 50, allowed=lambda device: seen.to(device))
    tail = AttentionMask(queries, 9)
    out, lse = attend_all(query, [(first, first, mask), (second, second, tail)], scale=0.4)
    parts = [
        attend(query, first, first, scale=0.4, mask=mask),
        attend(query, second, second, scale=0.4, mask=tail),
    ]
    expected, expected_lse = merge(*parts)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lse, expected_lse)


def test_many_callers_at_once(threads: int) -> None:
    """As of a backend that decodes for several models, each in a thread of its own."""
    made = [(random(1, 6, 1, 16), random(1, 2, 300 + i, 16)) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: few_rows.attend(one[0], [(one[1], one[1])], 0.4), made * 25))
    for (query, key), (out, _) in zip(made * 25, found, strict=True):
        torch.testing.assert_close(out.double(), exact(query, [(key, key)], 0.4)[0], atol=2e-6, rtol=1e-5)


def test_what_loops_cannot_read_is_the_kernels() -> None:
    plain = random(1, 2, 3, 16)
    assert few_rows.can_attend(plain, [(plain, plain)])
    assert not few_rows.can_attend(plain.double(), [(plain.double(), plain.double())])
    assert not few_rows.can_attend(plain.bfloat16(), [(plain, plain)])
    assert not few_rows.can_attend(plain.to("meta"), [(plain, plain)])
    assert not few_rows.can_attend(random(1, 2, 17, 16), [(plain, plain)])
    assert not few_rows.can_attend(plain, [(plain, plain), (plain, random(1, 2, 3, 8))])
    assert not few_rows.can_attend(plain, [(plain.transpose(2, 3), plain)])
    assert not few_rows.can_attend(plain.clone().requires_grad_(), [(plain, plain)])


def test_gradients_flow_through_few_rows() -> None:
    query, key = random(1, 4, 1, 8).requires_grad_(), random(1, 2, 20, 8)
    kernels.attend(query, key, key, scale=1.0)[0].sum().backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0


def test_the_usual_type_does_not_matter() -> None:
    """transformers changes it for all threads while it builds a model."""
    query, key = random(1, 4, 1, 8), random(1, 2, 20, 8)
    torch.set_default_dtype(torch.float64)
    try:
        out, lse = few_rows.attend(query, [(key, key)], 1.0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (out.dtype, lse.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(out.double(), exact(query, [(key, key)], 1.0)[0], atol=2e-6, rtol=1e-5)
