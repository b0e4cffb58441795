"""The product of a weight with several rows at once: what is in one vector register belongs to different rows.

So no register has to be added up at the end of each product, which takes longer than the product itself for weights as
narrow as those of small models. The innermost loop is written for the compiler, since it would not keep the sums of a
loop in Python in registers.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lighttransfer_core.machine_code import (
    LANES,
    BFloat16,
    compiled,
    fetch,
    has_feature,
    loop,
    multiply_add,
    narrowed,
    number,
    spread,
    taken,
)

_BLOCK: Final = 8
"""Outputs that are added up at a time."""
_NUMBER: Final = ir.IntType(32)
_PAIRS: Final = "llvm.x86.avx512bf16.dpbf16ps"

ADDS_PAIRS: Final = has_feature("avx512bf16")
"""Whether bfloat16 numbers are multiplied and added up two by two."""


def unit_for(rows: torch.dtype, weight: torch.dtype) -> torch.dtype:
    """The type in which rows and a weight of these types are multiplied."""
    return torch.bfloat16 if ADDS_PAIRS and rows == weight == torch.bfloat16 else torch.float32


@compiled
def multiply_across(rows: Any, weight: Any, like_unit: Any, first: int, last: int, output: Any) -> None:
    """Of rows `[r, in]` and a weight `[out, in]` the outputs `[r, out]` from `first` to `last`.

    What is multiplied at a time is a unit of four bytes: an input in float32, or, where `like_unit` is of bfloat16, two
    of that.
    """
    count, inputs = rows.shape
    lanes = 8 if count <= 8 else LANES
    groups = (count + lanes - 1) // lanes
    together = 4 // like_unit.itemsize
    units = (inputs + together - 1) // together
    columns = np.zeros((groups, units, lanes, together), like_unit.dtype)
    zero = columns[0, 0, 0, 0]
    for row in range(count):
        group, lane = row // lanes, row % lanes
        for k in range(together):
            for unit in range((inputs - k + together - 1) // together):
                columns[group, unit, lane, k] = taken(zero, rows[row, unit * together + k])
    space = np.zeros((_BLOCK, units * together), like_unit.dtype)
    sums = np.empty((_BLOCK, lanes), np.float32)
    as_it_is = weight.itemsize == like_unit.itemsize and units * together == inputs
    for i in range(first, last, _BLOCK):
        block = min(_BLOCK, last - i)
        begin = weight[i:].ctypes.data
        ahead = begin + _BLOCK * inputs * weight.itemsize
        if not as_it_is or block < _BLOCK:
            for k in range(block):
                for j in range(inputs):
                    space[k, j] = taken(zero, weight[i + k, j])
            begin = space.ctypes.data
        for group in range(groups):
            if lanes == 8:
                add_8(units, columns[group], begin, sums.ctypes.data, ahead, together * weight.itemsize)
            else:
                add_16(units, columns[group], begin, sums.ctypes.data, ahead, together * weight.itemsize)
            for row in range(group * lanes, min(count, (group + 1) * lanes)):
                for k in range(block):
                    output[row, i + k] = narrowed(output[row, i + k], sums[k, row % lanes])


def _adder(lanes: int) -> Any:
    """What adds up the products of a block of a weight with so many rows."""

    @intrinsic  # type: ignore[untyped-decorator]
    def add(typing: object, units: Any, columns: Any, block: Any, sums: Any, ahead: Any, size: Any) -> Any:
        """From `columns[units, lanes, ...]` and `block[_BLOCK, units, ...]` to `sums[_BLOCK, lanes]`; the latter two,
        and `ahead`, are addresses. Meanwhile as many units, of `size` bytes each, are fetched from `ahead`."""
        pairs = columns.dtype == types.uint16

        def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            units, columns, block, sums, ahead, size = given
            wide = ir.VectorType(ir.FloatType(), lanes)
            unit = _NUMBER if pairs else ir.FloatType()
            columns = context.make_array(signature.args[1])(context, builder, columns).data
            columns = builder.bitcast(columns, ir.VectorType(unit, lanes).as_pointer())
            block = builder.inttoptr(block, unit.as_pointer())
            sums = builder.inttoptr(sums, wide.as_pointer())
            step = builder.mul(size, number(_BLOCK))

            def add_products(j: Any, totals: list[Any]) -> list[Any]:
                fetch(builder, builder.add(ahead, builder.mul(j, step)))
                column = builder.load(builder.gep(columns, [j]), align=4)
                added = []
                for k, total in enumerate(totals):
                    place = builder.add(builder.mul(units, number(k)), j)
                    element = spread(builder, builder.load(builder.gep(block, [place]), align=4), lanes)
                    added.append((_add_pairs if pairs else multiply_add)(builder, total, column, element))
                return added

            totals = loop(builder, units, [ir.Constant(wide, None)] * _BLOCK, add_products)
            for k, total in enumerate(totals):
                builder.store(total, builder.gep(sums, [number(k)]), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, columns, *[types.int64] * 4), build

    return add


def _add_pairs(builder: Any, total: Any, column: Any, element: Any) -> Any:
    """The same for two inputs of each lane."""
    lanes = total.type.count
    pairs = ir.VectorType(BFloat16(), 2 * lanes)
    kind = ir.FunctionType(total.type, [total.type, pairs, pairs])
    sum_ = cgutils.get_or_insert_function(builder.module, kind, f"{_PAIRS}.{32 * lanes}")
    return builder.call(sum_, [total, builder.bitcast(column, pairs), builder.bitcast(element, pairs)])


add_8, add_16 = _adder(8), _adder(16)
