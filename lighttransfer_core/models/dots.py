"""Products of a weight with one row or a few, for which the weight is read once, at memory's speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from lighttransfer_core.machine_code import STORED, compiled, narrowed, parts_for, pointer, readable, widened
from lighttransfer_core.models.across import multiply_across, unit_for

_PART_NBYTES: Final = 1 << 19
_PART_PRODUCTS: Final = 1 << 19
"""A thread is woken for no less to read, or to multiply."""
_MOST_ALONG: Final = 2
"""Rows that are multiplied along their inputs, not across the rows."""
_PLACE: Final = 3
"""Numbers that say where a weight lies, where its outputs go, and how many those are for each row."""


def can_multiply(rows: Tensor, weight: Tensor) -> bool:
    """Whether these are what products that read by address expect: plain, contiguous, and of shapes that agree."""
    plain = readable(rows) and readable(weight) and rows.is_contiguous() and weight.is_contiguous()
    return plain and rows.shape[-1] == weight.shape[1]


def can_multiply_too(weight: Tensor, other: Tensor) -> bool:
    """Whether what can be multiplied with a weight can be with another one at the same time."""
    alike = other.dtype == weight.dtype and other.shape[1] == weight.shape[1]
    return alike and readable(other) and other.is_contiguous()


def dots(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows `[..., in]` and a weight `[out, in]`, both contiguous, to `[..., out]` in the rows' type."""
    return several_dots(rows, (weight,))[0]


def float32_dots(rows: Tensor, weight: Tensor) -> Tensor:
    """The same in float32."""
    # said in full: what is usual may be another type for as long as another thread builds a model
    output = torch.empty(*rows.shape[:-1], weight.shape[0], dtype=torch.float32, device=rows.device)
    _multiply(rows, (weight,), (output,))
    return output


def several_dots(rows: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """The products of several weights with as many inputs: threads are woken once for all of them."""
    before = rows.shape[:-1]
    outputs = [rows.new_empty(*before, weight.shape[0]) for weight in weights]
    _multiply(rows, weights, outputs)
    return outputs


def make_ready(dtype: torch.dtype, weights: torch.dtype | None = None) -> None:
    """Brings the loops for rows of a type, with weights of the same or another, so that no product waits for them."""
    if dtype in STORED:
        rows, weight = torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=weights or dtype)
        output = torch.empty(1, 1, dtype=dtype if weight.dtype == dtype else torch.float32)
        for parts in (1, 2):
            multiply_in_parts(rows, [weight], [output], parts)


def _multiply(rows: Tensor, weights: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    nbytes = products = 0
    for weight, output in zip(weights, outputs, strict=True):
        nbytes += weight.nbytes
        products += output.numel()
    products *= rows.shape[-1]
    parts = parts_for(max(nbytes // _PART_NBYTES, products // _PART_PRODUCTS))
    multiply_in_parts(rows, weights, outputs, parts)


def multiply_in_parts(rows: Tensor, weights: Sequence[Tensor], outputs: Sequence[Tensor], parts: int) -> None:
    """Writes each weight's outputs, which are of one type and contiguous; made in so many equal parts."""
    inputs, sizes, places = rows.shape[-1], 0, list[int]()
    for weight, output in zip(weights, outputs, strict=True):
        own = weight.shape[0]
        places += (weight.data_ptr(), output.data_ptr(), own)
        sizes += own
    loops = _by_several if parts > 1 else _by_one_thread
    unit = unit_for(rows.dtype, weights[0].dtype)
    loops(
        (rows.numel() // inputs, inputs, sizes),
        rows.data_ptr(),
        np.array(places, dtype=np.int64).reshape(-1, _PLACE),
        STORED[rows.dtype],
        STORED[weights[0].dtype],
        STORED[unit],
        STORED[outputs[0].dtype],
        parts,
    )


@compiled
def share(
    part: Any, parts: int, shape: Any, given: int, places: Any, like_rows: Any, like: Any, like_unit: Any, made: Any
) -> None:
    """One of the equal parts of the outputs."""
    count, inputs, outputs = shape
    rows = carray(pointer(given), (count, inputs), like_rows.dtype)
    before = 0
    for number in range(len(places)):
        address, written, own = places[number]
        # of this weight's outputs
        first = max(part * outputs // parts - before, 0)
        last = min((part + 1) * outputs // parts - before, own)
        if first < last:
            weight = carray(pointer(address), (own, inputs), like.dtype)
            output = carray(pointer(written), (count, own), made.dtype)
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
            output[row, i] = narrowed(output[row, i], product)


def _alone(
    shape: Any, given: int, places: Any, like_rows: Any, like: Any, like_unit: Any, made: Any, parts: int
) -> None:
    for part in range(parts):
        share(part, parts, shape, given, places, like_rows, like, like_unit, made)


def _shared(
    shape: Any, given: int, places: Any, like_rows: Any, like: Any, like_unit: Any, made: Any, parts: int
) -> None:
    for part in prange(parts):
        # a signed number, as above: for each kind of number the compiler makes all of it anew
        share(np.int64(part), parts, shape, given, places, like_rows, like, like_unit, made)


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
