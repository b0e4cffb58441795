"""Products of a weight with one row or a few, for which the weight is read once, at memory's speed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from llvmlite import ir
from numba import carray, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from lighttransfer_core.machine_code import STORED, compiled, pointer, readable, widened

_PART_NBYTES: Final = 1 << 19
_PART_PRODUCTS: Final = 1 << 19
"""A thread is woken for no less to read, or to multiply."""
_MOST_ALONG: Final = 2
"""Rows that are multiplied along their inputs, not across the rows."""
_BLOCK: Final = 8
"""Outputs that are added up at a time across rows."""


def _adder(lanes: int) -> Any:
    """What adds up the products of a block of a weight with so many rows at a time.

    Written for the compiler itself, which would not keep the sums of a loop in Python in registers.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def add(typing: object, inputs: Any, columns: Any, block: Any, sums: Any, ahead: Any, size: Any) -> Any:
        """From `columns[inputs, lanes]` and `block[_BLOCK, inputs]` to `sums[_BLOCK, lanes]`, all in float32 and by
        address. Meanwhile a block of elements of `size` bytes is fetched from `ahead`."""

        def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            inputs, columns, block, sums, ahead, size = given
            wide, index, byte = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64), ir.IntType(8)
            columns, sums = (builder.inttoptr(address, wide.as_pointer()) for address in (columns, sums))
            block = builder.inttoptr(block, ir.FloatType().as_pointer())
            step = builder.mul(size, ir.Constant(index, _BLOCK))
            fetch = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [byte.as_pointer(), *[ir.IntType(32)] * 3]),
                "llvm.prefetch.p0",
            )
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)

            builder.position_at_end(loop)
            j = builder.phi(index)
            totals = [builder.phi(wide) for _ in range(_BLOCK)]
            place = builder.inttoptr(builder.add(ahead, builder.mul(j, step)), byte.as_pointer())
            # to be read, kept a while, as data
            builder.call(fetch, [place, *(ir.Constant(ir.IntType(32), number) for number in (0, 1, 1))])
            column = builder.load(builder.gep(columns, [j]), align=4)
            added = []
            for k, total in enumerate(totals):
                place = builder.add(builder.mul(inputs, ir.Constant(index, k)), j)
                element = _everywhere(builder, builder.load(builder.gep(block, [place])), wide)
                product = builder.fmul(element, column, flags=("contract",))
                added.append(builder.fadd(total, product, flags=("contract",)))
            following = builder.add(j, ir.Constant(index, 1))
            builder.cbranch(builder.icmp_signed("<", following, inputs), loop, after)
            for value, first, next_ in ((j, 0, following), *((t, None, a) for t, a in zip(totals, added, strict=True))):
                value.add_incoming(ir.Constant(value.type, first), before)
                value.add_incoming(next_, loop)

            builder.position_at_end(after)
            for k, total in enumerate(added):
                builder.store(total, builder.gep(sums, [ir.Constant(index, k)]), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), build

    return add


def _everywhere(builder: Any, element: Any, wide: Any) -> Any:
    """A vector of one element, so many times."""
    nothing = ir.Constant(wide, ir.Undefined)
    first = builder.insert_element(nothing, element, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), wide.count), None)
    return builder.shuffle_vector(first, nothing, zeros)


add_8, add_16 = _adder(8), _adder(16)


def can_multiply(rows: Tensor, weight: Tensor) -> bool:
    """Whether these are what products that read by address expect: plain, contiguous, and of shapes that agree."""
    plain = readable(rows) and readable(weight) and rows.is_contiguous() and weight.is_contiguous()
    return plain and rows.shape[1] == weight.shape[1]


def dots(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows `[r, in]` and a weight `[out, in]`, both contiguous, to `[r, out]` in the rows' type."""
    return float32_dots(rows, weight).to(rows.dtype)


def float32_dots(rows: Tensor, weight: Tensor) -> Tensor:
    """The same before it is rounded to a type."""
    enough = max(weight.nbytes // _PART_NBYTES, rows.shape[0] * weight.numel() // _PART_PRODUCTS)
    return multiply_in_parts(rows, weight, max(1, min(torch.get_num_threads(), enough)))


def make_ready(dtype: torch.dtype, weights: torch.dtype | None = None) -> None:
    """Brings the loops for rows of a type, with weights of the same or another, so that no product waits for them."""
    if dtype in STORED:
        for parts in (1, 2):
            multiply_in_parts(torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=weights or dtype), parts)


def multiply_in_parts(rows: Tensor, weight: Tensor, parts: int) -> Tensor:
    """The outputs in so many equal parts."""
    (count, inputs), outputs = rows.shape, weight.shape[0]
    # said in full: what is usual may be another type for as long as another thread builds a model
    output = torch.empty(count, outputs, dtype=torch.float32, device=rows.device)
    loops = _by_several if parts > 1 else _by_one_thread
    addresses = rows.data_ptr(), weight.data_ptr(), output.data_ptr()
    loops(count, inputs, outputs, *addresses, STORED[rows.dtype], STORED[weight.dtype], parts)
    return output


@compiled
def share(
    part: int,
    parts: int,
    count: int,
    inputs: int,
    outputs: int,
    given: int,
    weights: int,
    made: int,
    like_rows: Any,
    like: Any,
) -> None:
    """One of the equal parts of the outputs."""
    rows = carray(pointer(given), (count, inputs), like_rows.dtype)
    weight = carray(pointer(weights), (outputs, inputs), like.dtype)
    output = carray(pointer(made), (count, outputs), np.float32)
    first, last = part * outputs // parts, (part + 1) * outputs // parts
    if count <= _MOST_ALONG:
        multiply_along(rows, weight, first, last, output)
    else:
        multiply_across(rows, weight, weights, first, last, output)


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


@compiled
def multiply_across(rows: Any, weight: Any, address: int, first: int, last: int, output: Any) -> None:
    """Neighbouring rows at a time, so that nothing is added up across a register at the end of each product."""
    count, inputs = rows.shape
    lanes = 8 if count <= 8 else 16
    groups = (count + lanes - 1) // lanes
    columns = np.zeros((groups, inputs, lanes), np.float32)
    for row in range(count):
        for j in range(inputs):
            columns[row // lanes, j, row % lanes] = widened(rows[row, j])
    wide = np.empty((_BLOCK, inputs), np.float32)
    sums = np.empty((_BLOCK, lanes), np.float32)
    for i in range(first, last, _BLOCK):
        block = min(_BLOCK, last - i)
        at = address + i * inputs * weight.itemsize
        ahead = at + _BLOCK * inputs * weight.itemsize
        if weight.itemsize < 4 or block < _BLOCK:
            for k in range(block):
                for j in range(inputs):
                    wide[k, j] = widened(weight[i + k, j])
            at = wide.ctypes.data
        for group in range(groups):
            if lanes == 8:
                add_8(inputs, columns[group].ctypes.data, at, sums.ctypes.data, ahead, weight.itemsize)
            else:
                add_16(inputs, columns[group].ctypes.data, at, sums.ctypes.data, ahead, weight.itemsize)
            for row in range(group * lanes, min(count, (group + 1) * lanes)):
                for k in range(block):
                    output[row, i + k] = sums[k, row % lanes]


def _alone(
    count: int, inputs: int, outputs: int, given: int, weights: int, made: int, like_rows: Any, like: Any, parts: int
) -> None:
    share(0, 1, count, inputs, outputs, given, weights, made, like_rows, like)


def _shared(
    count: int, inputs: int, outputs: int, given: int, weights: int, made: int, like_rows: Any, like: Any, parts: int
) -> None:
    for part in prange(parts):
        share(part, parts, count, inputs, outputs, given, weights, made, like_rows, like)


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
