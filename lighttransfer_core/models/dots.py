"""Products of a weight with one row or a few: dot products, for which the weight is read once, at memory's speed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor

from lighttransfer_core.machine_code import STORED, compiled, pointer, widened

_PART_NBYTES: Final = 1 << 19
"""A thread is woken for no less."""


def dots(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows `[r, in]` and a weight `[out, in]`, both contiguous and of one type, to `[r, out]`."""
    return _dots(rows, weight, max(1, min(torch.get_num_threads(), weight.nbytes // _PART_NBYTES)))


def make_ready(dtype: torch.dtype) -> None:
    """Brings the loops for weights of this type, so that no product has to wait for them."""
    if dtype in STORED:
        for parts in (1, 2):
            _dots(torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype), parts)


def _dots(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    (count, inputs), outputs = rows.shape, weight.shape[0]
    output = torch.empty(count, outputs)
    loops = _by_several if parts > 1 else _by_one_thread
    loops(count, inputs, outputs, rows.data_ptr(), weight.data_ptr(), output.data_ptr(), STORED[weight.dtype], parts)
    return output.to(weight.dtype)


@compiled
def share(
    part: int, parts: int, count: int, inputs: int, outputs: int, given: int, weights: int, made: int, like: Any
) -> None:
    """One of the equal parts of the outputs."""
    given_rows = carray(pointer(given), (count, inputs), like.dtype)
    weight = carray(pointer(weights), (outputs, inputs), like.dtype)
    output = carray(pointer(made), (count, outputs), np.float32)
    rows = np.empty((count, inputs), np.float32)
    for row in range(count):
        for j in range(inputs):
            rows[row, j] = widened(given_rows[row, j])
    for i in range(part * outputs // parts, (part + 1) * outputs // parts):
        for row in range(count):
            product = np.float32(0)
            for j in range(inputs):
                product += rows[row, j] * widened(weight[i, j])
            output[row, i] = product


def _alone(count: int, inputs: int, outputs: int, given: int, weights: int, made: int, like: Any, parts: int) -> None:
    share(0, 1, count, inputs, outputs, given, weights, made, like)


def _shared(count: int, inputs: int, outputs: int, given: int, weights: int, made: int, like: Any, parts: int) -> None:
    for part in prange(parts):
        share(part, parts, count, inputs, outputs, given, weights, made, like)


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
