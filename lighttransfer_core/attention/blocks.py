"""What a few queries do with a block of keys and values: their scores, and the values by their weights.

The innermost loops of `few_rows`, written for the compiler: it would read and widen the block anew for each query, and
would not keep the sums of a loop in Python in registers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from lighttransfer_core.machine_code import (
    LANES,
    compiled,
    fetch_all,
    loop,
    multiply_add,
    number,
    pointer,
    spread,
    widen,
    widened,
)

BLOCK: Final = 64
"""Keys at a time: they and their values stay in the nearest cache."""
_FOUR: Final = 4
"""Keys that are scored together."""
_WIDTH: Final = 32
"""Values of a token that are added together, so that no sum has to wait for the one before it."""
_WIDE: Final = ir.VectorType(ir.FloatType(), LANES)


@compiled
def score_block(query: Any, like: Any, keys: int, values: int, sizes: Any, count: int, scores: Any) -> None:
    """From queries `[rows, D]` and the `count` keys from an address on to `scores[rows, BLOCK]`.

    `sizes` are the bytes from one key to the next, and from one value to the next. Meanwhile the values of the block
    are fetched, and the keys of the next, so that memory never rests.
    """
    rows, dim = query.shape
    key_size, value_size = sizes
    step = _together(rows)
    for row in range(0, rows, step):
        some = min(step, rows - row)
        queries, found = query[row:].ctypes.data, scores[row:].ctypes.data
        for token in range(0, count, _FOUR):
            left = count - token
            if row == 0:
                for near in range(token, token + min(_FOUR, left)):
                    fetch_all(values + near * value_size, dim * like.itemsize)
                    fetch_all(keys + (BLOCK + near) * key_size, dim * like.itemsize)
            here, at = keys + token * key_size, found + 4 * token
            if some == 1:
                _score_1(like, queries, dim, here, key_size, left, at)
            elif some == 2:
                _score_2(like, queries, dim, here, key_size, left, at)
            else:
                _score_3(like, queries, dim, here, key_size, left, at)
    whole = dim // LANES * LANES
    if whole < dim:
        block = carray(pointer(keys), (count, key_size // like.itemsize), like.dtype)
        for row in range(rows):
            for token in range(count):
                for i in range(whole, dim):
                    scores[row, token] += query[row, i] * widened(block[token, i])


@compiled
def mix_block(weights: Any, like: Any, values: int, size: int, count: int, output: Any) -> None:
    """To `output[rows, Dv]` the `count` values from an address on, `size` bytes from one to the next, times
    `weights[rows, BLOCK]`."""
    rows, dim = output.shape
    step = _together(rows)
    whole, rest = dim // _WIDTH * _WIDTH, dim // LANES * LANES
    for row in range(0, rows, step):
        some = min(step, rows - row)
        for i in range(0, whole, _WIDTH):
            begin, here, sums = weights[row:].ctypes.data, values + i * like.itemsize, output[row, i:].ctypes.data
            if some == 1:
                _mix_1(like, begin, count, here, size, sums, dim)
            elif some == 2:
                _mix_2(like, begin, count, here, size, sums, dim)
            else:
                _mix_3(like, begin, count, here, size, sums, dim)
    for row in range(rows):
        for i in range(whole, rest, LANES):
            begin, here, sums = weights[row:].ctypes.data, values + i * like.itemsize, output[row, i:].ctypes.data
            _mix_narrow(like, begin, count, here, size, sums, dim)
    if rest < dim:
        block = carray(pointer(values), (count, size // like.itemsize), like.dtype)
        for row in range(rows):
            for token in range(count):
                for i in range(rest, dim):
                    output[row, i] += weights[row, token] * widened(block[token, i])


@compiled
def _together(rows: int) -> int:
    """How many queries at a time: as many as leave a register for each sum, in parts of about the same size."""
    parts = (rows + 2) // 3
    return (rows + parts - 1) // parts


def _scorer(rows: int) -> Any:
    """What scores four keys by so many queries."""

    @intrinsic  # type: ignore[untyped-decorator]
    def score(typing: object, like: Any, queries: Any, dim: Any, keys: Any, size: Any, left: Any, scores: Any) -> Any:
        """From `queries[rows, dim]` and the keys from the address `keys` on to `scores[rows, BLOCK]`. What a dimension
        has beyond whole registers is left out; where fewer than four keys are left, the last is scored again."""

        def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            _, queries, dim, keys, size, left, scores = given
            element = context.get_data_type(like.dtype)
            places = []
            for token in range(_FOUR):
                among = builder.icmp_signed("<", number(token), left)
                place = builder.select(among, number(token), builder.sub(left, number(1)))
                places.append(builder.add(keys, builder.mul(place, size)))

            def add(at: Any, sums: list[Any]) -> list[Any]:
                begin = builder.mul(at, number(LANES))
                query = []
                for row in range(rows):
                    place = builder.add(begin, builder.mul(dim, number(row)))
                    query.append(_load(builder, _moved(builder, queries, place, ir.FloatType()), _WIDE))
                added: list[Any] = []
                for place in places:
                    stored = _load(builder, _moved(builder, place, begin, element), ir.VectorType(element, LANES))
                    key = widen(builder, like.dtype, stored)
                    added += [multiply_add(builder, sums[len(added) + row], query[row], key) for row in range(rows)]
                return added

            nothing = [ir.Constant(_WIDE, None)] * (_FOUR * rows)
            sums = loop(builder, builder.udiv(dim, number(LANES)), nothing, add)
            for row in range(rows):
                place = _moved(builder, scores, number(row * BLOCK), ir.FloatType())
                _store(builder, _four_sums(builder, sums[row::rows]), place)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 6), build

    return score


def _mixer(rows: int, width: int) -> Any:
    """What adds so many values of each token by the weights of so many queries."""

    @intrinsic  # type: ignore[untyped-decorator]
    def mix(typing: object, like: Any, weights: Any, count: Any, values: Any, size: Any, output: Any, dim: Any) -> Any:
        """To the first `width` of `output[rows, dim]` those of the values from the address `values` on, times
        `weights[rows, BLOCK]`."""

        def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            _, weights, count, values, size, output, dim = given
            element = context.get_data_type(like.dtype)
            lanes = range(0, width, LANES)
            places = []
            for lane in lanes:
                for row in range(rows):
                    place = builder.add(builder.mul(dim, number(row)), number(lane))
                    places.append(_moved(builder, output, place, ir.FloatType()))

            def add(token: Any, sums: list[Any]) -> list[Any]:
                here = builder.add(values, builder.mul(token, size))
                weight = []
                for row in range(rows):
                    place = _moved(builder, weights, builder.add(token, number(row * BLOCK)), ir.FloatType())
                    weight.append(spread(builder, _load(builder, place, ir.FloatType()), LANES))
                added: list[Any] = []
                for lane in lanes:
                    # one register after the other: all of them at once would push sums out
                    place = _moved(builder, here, number(lane), element)
                    value = widen(builder, like.dtype, _load(builder, place, ir.VectorType(element, LANES)))
                    added += [multiply_add(builder, sums[len(added) + row], weight[row], value) for row in range(rows)]
                return added

            sums = loop(builder, count, [_load(builder, place, _WIDE) for place in places], add)
            for place, sum_ in zip(places, sums, strict=True):
                _store(builder, sum_, place)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 6), build

    return mix


@intrinsic  # type: ignore[untyped-decorator]
def highest(typing: object, scores: object) -> Any:
    """Of the `BLOCK` scores from an address on."""

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        def higher(left: Any, right: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", left, right), left, right)

        top = _load(builder, given[0], _WIDE)
        for place in range(LANES, BLOCK, LANES):
            top = higher(top, _load(builder, _moved(builder, given[0], number(place), ir.FloatType()), _WIDE))
        while top.type.count > 1:
            top = higher(*_halves(builder, top))
        return builder.extract_element(top, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.int64), build


def _four_sums(builder: Any, vectors: list[Any]) -> Any:
    """The sum of each of four vectors, as one. Numbers change places within groups of four, which takes no time."""

    def paired(left: Any, right: Any, *halves: list[int]) -> Any:
        return builder.fadd(*(_shuffled(builder, left, right, _in_groups(places)) for places in halves))

    first = paired(vectors[0], vectors[1], [0, 4, 1, 5], [2, 6, 3, 7])
    second = paired(vectors[2], vectors[3], [0, 4, 1, 5], [2, 6, 3, 7])
    sums = paired(first, second, [0, 1, 4, 5], [2, 3, 6, 7])
    while sums.type.count > _FOUR:
        sums = builder.fadd(*_halves(builder, sums))
    return sums


def _in_groups(places: list[int]) -> list[int]:
    """The same for each group of four of two vectors; from 4 on, those of the second."""
    groups = range(0, LANES, _FOUR)
    return [group + place % _FOUR + place // _FOUR * LANES for group in groups for place in places]


def _halves(builder: Any, vector: Any) -> tuple[Any, Any]:
    half = vector.type.count // 2
    low, high = (_shuffled(builder, vector, vector, range(start, start + half)) for start in (0, half))
    return low, high


def _shuffled(builder: Any, left: Any, right: Any, places: Iterable[int]) -> Any:
    chosen = list(places)
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


def _moved(builder: Any, address: Any, count: Any, element: Any) -> Any:
    """The address so many elements further."""
    size = 4 if isinstance(element, ir.FloatType) else element.width // 8
    return builder.add(address, builder.mul(count, number(size)))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


_score_1, _score_2, _score_3 = (_scorer(rows) for rows in (1, 2, 3))
_mix_1, _mix_2, _mix_3 = (_mixer(rows, _WIDTH) for rows in (1, 2, 3))
_mix_narrow = _mixer(1, LANES)
