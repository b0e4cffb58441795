"""Products of a weight with one row or a few, for which the weight is read once, at memory's speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from lighttransfer_core.machine_code import STORED, compiled, parts_for, pointer, readable, widened
from lighttransfer_core.models.across import multiply_across, unit_for

_PART_NBYTES: Final = 1 << 19
_PART_PRODUCTS: Final = 1 << 19
"""A thread is woken for no less to read, or to multiply."""
_MOST_ALONG: Final = 2
"""Rows that are multiplied along their inputs, not across the rows."""


def can_multiply(rows: Tensor, weight: Tensor) -> bool:
    """Whether these are what products that read by address expect: plain, contiguous, and of shapes that agree."""
    plain = readable(rows) and readable(weight) and rows.is_contiguous() and weight.is_contiguous()
    return plain and rows.shape[-1] == weight.shape[1]


def dots(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows `[..., in]` and a weight `[out, in]`, both contiguous, to `[..., out]` in the rows' type."""
    return float32_dots(rows, weight).to(rows.dtype)


def float32_dots(rows: Tensor, weight: Tensor) -> Tensor:
    """The same before it is rounded to a type."""
    return _all_dots(rows, [weight]).view(*rows.shape[:-1], weight.shape[0])


def several_dots(rows: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The same of several weights with as many inputs: threads are woken once for all of them."""
    outputs = _all_dots(rows, weights).to(rows.dtype)
    count = rows.numel() // rows.shape[-1]
    parted = outputs.split([count * len(weight) for weight in weights])
    return [one.view(*rows.shape[:-1], len(weight)) for one, weight in zip(parted, weights, strict=True)]


def make_ready(dtype: torch.dtype, weights: torch.dtype | None = None) -> None:
    """Brings the loops for rows of a type, with weights of the same or another, so that no product waits for them."""
    if dtype in STORED:
        for parts in (1, 2):
            multiply_in_parts(torch.zeros(1, 1, dtype=dtype), [torch.zeros(1, 1, dtype=weights or dtype)], parts)


def _all_dots(rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
    nbytes = sum(weight.nbytes for weight in weights)
    products = rows.numel() * sum(map(len, weights))
    return multiply_in_parts(rows, weights, parts_for(max(nbytes // _PART_NBYTES, products // _PART_PRODUCTS)))


def multiply_in_parts(rows: Tensor, weights: Sequence[Tensor], parts: int) -> Tensor:
    """All outputs in float32, each weight's behind those of the one before; made in so many equal parts."""
    inputs = rows.shape[-1]
    places = np.array([(weight.data_ptr(), len(weight)) for weight in weights], dtype=np.int64)
    count, outputs = rows.numel() // inputs, sum(map(len, weights))
    # said in full: what is usual may be another type for as long as another thread builds a model
    output = torch.empty(count * outputs, dtype=torch.float32, device=rows.device)
    loops = _by_several if parts > 1 else _by_one_thread
    kinds = STORED[rows.dtype], STORED[weights[0].dtype], STORED[unit_for(rows.dtype, weights[0].dtype)]
    loops((count, inputs, outputs), rows.data_ptr(), places, output.data_ptr(), *kinds, parts)
    return output


@compiled
def share(
    part: Any, parts: int, shape: Any, given: int, places: Any, made: int, like_rows: Any, like: Any, like_unit: Any
) -> None:
    """One of the equal parts of the outputs."""
    count, inputs, outputs = shape
    rows = carray(pointer(given), (count, inputs), like_rows.dtype)
    before = 0
    for number in range(len(places)):
        address, own = places[number]
        # of this weight's outputs
        first = max(part * outputs // parts - before, 0)
        last = min((part + 1) * outputs // parts - before, own)
        if first < last:
            weight = carray(pointer(address), (own, inputs), like.dtype)
            output = carray(pointer(made + 4 * count * before), (count, own), np.float32)
            if count <= _MOST_ALONG:
                multiply_along(rows, weight, first, last, output)
            else:
                multiply_across(rows, weight, like_unit, first, last, output)
        before += own


@compiled
def multiply_along(rows: Any, weight: Any, first: int, last: int, output: Any) -> None:
    """Neighbouring inputs at a time: as quick as memory for a row or two."""
    count, inputs = rows.shape
    wide = np.empty((count, inputs), np.float32)
    for row in range(count):
        for j in range(inputs):
            wide[row, j] = widened(rows[row, j])
    for i in range(first, last):
        for row in range(count):
            product = np.float32(0)
            for j in range(inputs):
                product += wide[row, j] * widened(weight[i, j])
            output[row, i] = product


def _alone(
    shape: Any, given: int, places: Any, made: int, like_rows: Any, like: Any, like_unit: Any, parts: int
) -> None:
    for part in range(parts):
        share(part, parts, shape, given, places, made, like_rows, like, like_unit)


def _shared(
    shape: Any, given: int, places: Any, made: int, like_rows: Any, like: Any, like_unit: Any, parts: int
) -> None:
    for part in prange(parts):
        # a signed number, as above: for each kind of number the compiler makes all of it anew
        share(np.int64(part), parts, shape, given, places, made, like_rows, like, like_unit)


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
