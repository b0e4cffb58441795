"""Attention of one new token, or a few, on a CPU: keys and values are read once, as fast as memory gives them.

The fused kernel is made for many rows. With the few of one token it reads keys and values at a third of memory's speed,
and half-precision ones at a sixth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from lighttransfer_core.attention.blocks import BLOCK, highest, mix_block, score_block
from lighttransfer_core.machine_code import STORED, compiled, float_of, narrowed, parts_for, pointer, readable, widened

Stretch = tuple[Tensor, Tensor]
"""Keys `[B, Hk, T, D]` and values `[B, Hk, T, Dv]`."""

_MOST_ROWS: Final = 16
"""Queries to a head of keys; with more of them, multiplying takes longer than reading."""
_PART_NBYTES: Final = 1 << 20
"""A thread is woken for no less."""
_PLACE: Final = 9
"""Numbers that say where a stretch lies: of keys and of values the address and how many elements sequences, heads and
tokens lie apart; and the tokens."""
_LOWEST: Final = np.float32(-1e30)


def can_attend(query: Tensor, stretches: Sequence[Stretch]) -> bool:
    """Whether the loops serve a query `[B, H, Tq, D]` over all of these."""
    first_key, first_value = stretches[0]
    if query.shape[1] * query.shape[2] > _MOST_ROWS * first_key.shape[1] or not readable(query):
        return False
    for key, value in stretches:
        if not (key.dtype == value.dtype == query.dtype and readable(key) and readable(value)):
            return False
        if value.shape[3] != first_value.shape[3]:
            return False
    tensors = (query, *(tensor for stretch in stretches for tensor in stretch))
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def attend(query: Tensor, stretches: Sequence[Stretch], scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention of queries `[B, H, Tq, D]` over all the keys of all stretches together.

    Returns
    -------
    Output `[B, H, Tq, Dv]` in the query's dtype and log-sum-exp `[B, H, Tq]` in float32.
    """
    nbytes = 0
    for key, value in stretches:
        nbytes += key.nbytes + value.nbytes
    return attend_in_parts(query, stretches, scale, parts_for(nbytes // _PART_NBYTES))


def make_ready(dtype: torch.dtype) -> None:
    """Brings the loops for keys of this type, so that no step has to wait for them."""
    if dtype in STORED:
        query = torch.zeros(1, 1, 1, 1, dtype=dtype)
        for parts in (1, 2):
            attend_in_parts(query, [(query, query)], 1.0, parts)


def attend_in_parts(query: Tensor, stretches: Sequence[Stretch], scale: float, parts: int) -> tuple[Tensor, Tensor]:
    """The same, the work in so many equal parts."""
    batch, heads, queries, dim = query.shape
    first_key, first_value = stretches[0]
    key_heads, value_dim = first_key.shape[1], first_value.shape[3]
    places: list[int] = []
    for key, value in stretches:
        places += (key.data_ptr(), *key.stride()[:3], value.data_ptr(), *value.stride()[:3], key.shape[2])
    query = query.contiguous()
    output = query.new_empty(batch, heads, queries, value_dim)
    lse = query.new_empty(batch, heads, queries, dtype=torch.float32)
    loops = _by_several if parts > 1 else _by_one_thread
    loops(
        (batch, key_heads, heads * queries // key_heads, dim, value_dim),
        query.data_ptr(),
        np.array(places, dtype=np.int64).reshape(-1, _PLACE),
        STORED[query.dtype],
        scale,
        parts,
        output.data_ptr(),
        lse.data_ptr(),
    )
    return output, lse


@compiled
def exponential(x: Any) -> Any:
    """e to the x, for x of 0 or less: the nearest power of two, times a polynomial of what is left.

    Written out, so that many are computed at once; the coefficients are those of the Cephes library.
    """
    x = max(x, np.float32(-87.0))
    power = np.rint(x * np.float32(1.4426950408889634))
    rest = x - power * np.float32(0.693359375) - power * np.float32(-2.12194440e-4)
    sum_ = np.float32(1.9875691500e-4)
    sum_ = sum_ * rest + np.float32(1.3981999507e-3)
    sum_ = sum_ * rest + np.float32(8.3334519073e-3)
    sum_ = sum_ * rest + np.float32(4.1665795894e-2)
    sum_ = sum_ * rest + np.float32(1.6666665459e-1)
    sum_ = sum_ * rest + np.float32(5.0000001201e-1)
    sum_ = sum_ * rest * rest + rest + np.float32(1)
    return sum_ * float_of(np.uint32(np.int32(power) + np.int32(127)) << np.uint32(23))


@compiled
def piece(
    query: Any,
    sequence: int,
    head: int,
    places: Any,
    like: Any,
    begin: int,
    end: int,
    output: Any,
    peak: Any,
    mass: Any,
) -> None:
    """One head's queries `[rows, D]` over the keys from `begin` to `end`, counted through all stretches; what comes out
    is still to be divided by `mass`, the sum of the exponentials below `peak`."""
    scores = np.empty((query.shape[0], BLOCK), np.float32)
    output[:] = np.float32(0)
    peak[:] = _LOWEST
    mass[:] = np.float32(0)
    passed = 0
    for number in range(places.shape[0]):
        place = places[number]
        tokens = place[8]
        first, last = max(begin - passed, 0), min(end - passed, tokens)
        passed += tokens
        keys = place[0] + (sequence * place[1] + head * place[2]) * like.itemsize
        values = place[4] + (sequence * place[5] + head * place[6]) * like.itemsize
        sizes = place[3] * like.itemsize, place[7] * like.itemsize
        for start in range(first, last, BLOCK):
            count = min(BLOCK, last - start)
            at_keys, at_values = keys + start * sizes[0], values + start * sizes[1]
            score_block(query, like, at_keys, at_values, sizes, count, scores)
            weigh_block(scores, count, output, peak, mass)
            mix_block(scores, like, at_values, sizes[1], count, output)


@compiled
def weigh_block(scores: Any, count: int, output: Any, peak: Any, mass: Any) -> None:
    """Scores into exponentials below the highest so far, to which what came before is brought down."""
    for row in range(scores.shape[0]):
        scores[row, count:] = _LOWEST
        top = max(peak[row], highest(scores[row:].ctypes.data))
        if top > peak[row]:
            shrink = exponential(peak[row] - top)
            peak[row] = top
            mass[row] *= shrink
            for i in range(output.shape[1]):
                output[row, i] *= shrink
        added = np.float32(0)
        for token in range(count):
            weight = exponential(scores[row, token] - top)
            scores[row, token] = weight
            added += weight
        mass[row] += added


@compiled
def share(
    part: Any,
    parts: int,
    query: Any,
    heads: int,
    places: Any,
    like: Any,
    pieces: Any,
    peak: Any,
    mass: Any,
) -> None:
    """One of the equal parts of all units' keys; its piece of a unit is written into row `unit + part`."""
    tokens = places[:, 8].sum()
    work = len(query) * tokens
    at, stop = part * work // parts, (part + 1) * work // parts
    while at < stop:
        unit = at // tokens
        end = min(stop, (unit + 1) * tokens)
        first, row = unit * tokens, unit + part
        piece(
            query[unit],
            unit // heads,
            unit % heads,
            places,
            like,
            at - first,
            end - first,
            pieces[row],
            peak[row],
            mass[row],
        )
        at = end


@compiled
def join(tokens: int, parts: int, pieces: Any, peak: Any, mass: Any, output: Any, lse: Any) -> None:
    """Each unit's pieces into one, divided, and rounded."""
    units, rows, value_dim = output.shape
    work = units * tokens
    lse[:] = _LOWEST
    sums = np.zeros((units, rows), np.float32)
    joined = np.zeros((units, rows, value_dim), np.float32)
    for part in range(parts):
        at, stop = part * work // parts, (part + 1) * work // parts
        while at < stop:
            unit = at // tokens
            for row in range(rows):
                top = max(lse[unit, row], peak[unit + part, row])
                old = np.exp(lse[unit, row] - top)
                new = np.exp(peak[unit + part, row] - top)
                lse[unit, row] = top
                sums[unit, row] = old * sums[unit, row] + new * mass[unit + part, row]
                for i in range(value_dim):
                    joined[unit, row, i] = old * joined[unit, row, i] + new * pieces[unit + part, row, i]
            at = min(stop, (unit + 1) * tokens)
    for unit in range(units):
        for row in range(rows):
            for i in range(value_dim):
                output[unit, row, i] = narrowed(output[unit, row, i], joined[unit, row, i] / sums[unit, row])
            lse[unit, row] += np.log(sums[unit, row])


@compiled
def begun(shape: Any, address: int, like: Any, scale: Any, parts: int, output: int, lse: int) -> Any:
    """The scaled query as `[units, rows, D]`; where the pieces go, each with its peak and its mass; and what comes out,
    `[units, rows, Dv]` and `[units, rows]`. A unit is one head of keys of one sequence, with its queries."""
    batch, heads, rows, dim, value_dim = shape
    units = batch * heads
    stored = carray(pointer(address), (units, rows, dim), like.dtype)
    query = np.empty((units, rows, dim), np.float32)
    for unit in range(units):
        for row in range(rows):
            for i in range(dim):
                query[unit, row, i] = scale * widened(stored[unit, row, i])
    room = units + parts
    pieces = np.empty((room, rows, value_dim), np.float32)
    found = (
        carray(pointer(output), (units, rows, value_dim), like.dtype),
        carray(pointer(lse), (units, rows), np.float32),
    )
    return query, pieces, np.empty((room, rows), np.float32), np.empty((room, rows), np.float32), *found


def _alone(shape: Any, query: int, places: Any, like: Any, scale: float, parts: int, output: int, lse: int) -> None:
    rows, pieces, peak, mass, out, sums = begun(shape, query, like, np.float32(scale), parts, output, lse)
    for part in range(parts):
        share(part, parts, rows, shape[1], places, like, pieces, peak, mass)
    join(places[:, 8].sum(), parts, pieces, peak, mass, out, sums)


def _shared(shape: Any, query: int, places: Any, like: Any, scale: float, parts: int, output: int, lse: int) -> None:
    """The same, a thread for each part: even for one, this would wake another."""
    rows, pieces, peak, mass, out, sums = begun(shape, query, like, np.float32(scale), parts, output, lse)
    for part in prange(parts):
        # a signed number, as above: for each kind of number the compiler makes all of it anew
        share(np.int64(part), parts, rows, shape[1], places, like, pieces, peak, mass)
    join(places[:, 8].sum(), parts, pieces, peak, mass, out, sums)


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
