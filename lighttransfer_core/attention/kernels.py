"""One attention call, exact, that also returns the row log-sum-exp, and the merge of two such calls.

Knows tensors and masks; knows no model and no cache. The device's fused kernel does the work where it returns the
log-sum-exp; a blockwise float32 computation serves the rest. Scores of all queries against all keys are never held at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from lighttransfer_core.attention import few_rows
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.threads import alone

_BLOCK_SCORES = 1 << 24
"""Scores that the blockwise computation holds at a time."""
_PAST_TOKENS = 512
"""From so many tokens before a chunk on, attending to them without a mask saves more than merging costs."""
_SMALL = 1 << 18
"""Multiplications of queries and keys up to which the CPU's kernel is quicker in one thread: it takes about as long as
waking another."""
_FOLDED_ROWS = 256
"""Up to so many rows the CPU's kernel is faster, by a quarter at 64, where the heads of a group are more rows."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    mask: AttentionMask | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with grouped query heads.

    Parameters
    ----------
    query
        `[B, H, Tq, D]`.
    key, value
        `[B, Hk, Tk, D]` and `[B, Hk, Tk, Dv]`, with `H` a multiple of `Hk`.
    scale
        Factor of the dot products.
    mask
        Which keys each query sees; None: all.
    softcap
        Bounds the scaled scores to `softcap * tanh(score / softcap)`.

    Returns
    -------
    Output `[B, H, Tq, Dv]` in the query's dtype, and log-sum-exp of the scores `[B, H, Tq]` in float32 (float64 for
    float64 inputs). A query that sees no key gets an output of 0 and a log-sum-exp of minus infinity.

    Raises
    ------
    InvalidInputError
        Shapes or strides that the fused kernels would read past or misread.
    """
    return attend_all(query, [(key, value, mask)], scale=scale, softcap=softcap)


def attend_all(
    query: Tensor,
    stretches: Sequence[tuple[Tensor, Tensor, AttentionMask | None]],
    *,
    scale: float,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`attend`, over the keys and values of several disjoint stretches together, each with its mask.

    Without masks, as while decoding, loops that are made for few queries serve them; a prompt's chunks have masks, so
    that each of them is computed like the whole.
    """
    for key, value, mask in stretches:
        _check(query, key, value, mask)
    if softcap is None and all(mask is None for *_, mask in stretches):
        plain = [(key, value) for key, value, _ in stretches]
        if few_rows.can_attend(query, plain):
            return few_rows.attend(query, plain, scale)
    if query.shape[2] > 1:
        return reduce(merge, (_dispatch(query, *stretch, scale, softcap) for stretch in stretches))
    rows = _folded(query, stretches[0][0])
    out, lse = reduce(merge, (_dispatch(rows, *stretch, scale, softcap) for stretch in stretches))
    return out.reshape(*query.shape[:3], out.shape[3]), lse.reshape(query.shape[:3])


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over the union of two disjoint sets of keys, from the attention over each.

    Each part is an output `[B, H, Tq, D]` with its log-sum-exp `[B, H, Tq]`; a part without keys has minus infinity.
    """
    (out_a, lse_a), (out_b, lse_b) = first, second
    # Where neither part has keys there is no difference: the output stays 0.
    weight = torch.sigmoid((lse_b - lse_a).nan_to_num(0.0)).unsqueeze(-1)
    out = torch.lerp(out_a.to(weight.dtype), out_b.to(weight.dtype), weight)
    return out.to(out_a.dtype), torch.logaddexp(lse_a, lse_b)


def with_learned_sink(part: tuple[Tensor, Tensor], sink_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Adds a learned sink: one more logit per head `[H]` in the softmax's denominator, without a value."""
    out, lse = part
    sink = sink_logits.to(lse.dtype)[None, :, None]
    return (out * torch.sigmoid(lse - sink).unsqueeze(-1)).to(out.dtype), torch.logaddexp(lse, sink.expand_as(lse))


def _check(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None) -> None:
    batch, heads, rows, dim = query.shape
    if 0 in query.shape or 0 in key.shape or 0 in value.shape:
        raise InvalidInputError(f"attention over nothing: query {tuple(query.shape)}, key {tuple(key.shape)}.")
    if key.shape[0] != batch or value.shape[:3] != key.shape[:3] or key.shape[3] != dim:
        raise InvalidInputError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} do not belong together."
        )
    if heads % key.shape[1]:
        raise InvalidInputError(f"{heads} query heads do not divide into {key.shape[1]} key-value heads.")
    if any(tensor.stride(-1) != 1 for tensor in (query, key, value)):
        raise InvalidInputError("the head dimension must be contiguous: call .contiguous() first.")
    if mask is not None and (mask.q_length, mask.kv_length) != (rows, key.shape[2]):
        raise InvalidInputError(
            f"the mask is for {mask.q_length} queries and {mask.kv_length} keys, not {rows} and {key.shape[2]}."
        )


def _dispatch(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    if mask is not None and mask.sees_everything:
        mask = None
    if softcap is None and query.device.type == "cpu":
        return _attend_cpu(query, key, value, scale, mask)
    if softcap is None and query.device.type == "cuda" and (mask is None or mask.is_causal):
        if query.dtype in (torch.float16, torch.bfloat16) and query.shape[3] <= 256 and query.shape[3] % 8 == 0:
            return _attend_cuda_flash(query, key, value, scale, mask is not None)
        if query.dtype == torch.float32 and query.shape[3] % 4 == 0 and (mask is None or mask.is_square):
            return _attend_cuda_efficient(query, key, value, scale, mask is not None)
    return _attend_blockwise(query, key, value, scale, mask, softcap)


def _folded(query: Tensor, key: Tensor) -> Tensor:
    """`[B, H, Tq, D]` to `[B, Hk, rows, D]`: the heads that share a head of keys become rows, so it is read once."""
    return query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])


def _attend_cpu(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: AttentionMask | None
) -> tuple[Tensor, Tensor]:
    rows, past = query.shape[2], key.shape[2] - query.shape[2]
    if mask is None and rows <= _FOLDED_ROWS and query.shape[1] > key.shape[1]:
        out, lse = _attend_cpu(_folded(query, key), key, value, scale, None)
        return out.reshape(*query.shape[:3], value.shape[3]), lse.reshape(query.shape[:3])
    # The kernel's own causal flag counts from the top left, so it is right for a square only.
    causal = mask is not None and mask.is_causal and past == 0
    if mask is not None and mask.is_causal and past >= _PAST_TOKENS:
        before = _attend_cpu(query, key[:, :, :past], value[:, :, :past], scale, None)
        square = AttentionMask(rows, rows)
        return merge(before, _attend_cpu(query, key[:, :, past:], value[:, :, past:], scale, square))
    value_dim = value.shape[3]
    if value_dim != query.shape[3]:
        value = functional.pad(value, (0, query.shape[3] - value_dim))
    additive = None if mask is None or causal else mask.additive(query.device)
    if additive is not None and query.dtype == torch.float64:
        additive = additive.double()  # the kernel would read it as though it were
    given = (query, key, value, causal, additive, scale)
    small = query.numel() * key.shape[2] <= _SMALL
    out, lse = alone(_flash_cpu, *given) if small else _flash_cpu(*given)
    if mask is not None and (blank := mask.blank_rows(query.device)) is not None:
        lse = lse.masked_fill(blank, -torch.inf)
    return out[..., :value_dim], lse


def _flash_cpu(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, additive: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=additive, scale=scale
    )
    return out, lse


def _attend_cuda_flash(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """On CUDA the flash kernel's causal flag counts from the bottom right, as ours does."""
    value_dim = value.shape[3]
    if value_dim != query.shape[3]:
        value = functional.pad(value, (0, query.shape[3] - value_dim))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)
    return out[..., :value_dim], lse[..., : query.shape[2]]


def _attend_cuda_efficient(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    group = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None, True, 0.0, causal, scale=scale
    )
    return out, lse[..., : query.shape[2]]


def _attend_blockwise(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: AttentionMask | None, softcap: float | None
) -> tuple[Tensor, Tensor]:
    batch, heads, rows, _ = query.shape
    kv_heads, columns = key.shape[1], key.shape[2]
    group = heads // kv_heads
    work = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys, values = key.to(work).unsqueeze(2), value.to(work).unsqueeze(2)
    out = query.new_empty(batch, heads, rows, value.shape[3])
    lse = torch.empty(batch, heads, rows, dtype=work, device=query.device)
    additive = None if mask is None else mask.additive(query.device).unsqueeze(2)
    block = max(1, _BLOCK_SCORES // (batch * heads * columns))
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        part = query[:, :, start:stop].to(work).unflatten(1, (kv_heads, group))
        scores = capped(scale * (part @ keys.transpose(-1, -2)), softcap)
        if additive is not None:
            scores = scores + (additive if additive.shape[3] == 1 else additive[..., start:stop, :])
        part_lse = torch.logsumexp(scores, dim=-1)
        base = part_lse.masked_fill(part_lse == -torch.inf, 0.0)
        weights = torch.exp(scores - base.unsqueeze(-1))
        out[:, :, start:stop] = (weights @ values).flatten(1, 2).to(out.dtype)
        lse[:, :, start:stop] = part_lse.flatten(1, 2)
    return out, lse


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """The soft cap that some models put on their scaled scores."""
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)
