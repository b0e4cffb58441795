"""Loops written in Python that numba compiles for this machine's processor, for what no library does well here.

With one row, a matrix library reads memory at a fraction of its speed. What is compiled is kept on disk beside the
source, so only the first process on a machine waits for it. It is compiled anew where its own file changes, not where
this one does: `make model` sees to that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import metadata
from typing import Any, Final, TypeVar

import numba
import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])

_TBB: Final = "libtbb.so.12"
_FAST_MATH: Final = {"reassoc", "contract", "nsz", "arcp"}
"""Sums in any order; infinities and nan stay what they are."""


def _load_threads() -> bool:
    """Whether loops can be shared among threads: by Threading Building Blocks alone.

    Its threads wake within microseconds, and any thread may call it. numba looks for it where the system keeps its
    libraries, so the one of this environment is loaded first.
    """
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return False
    for file in files:
        if file.name == _TBB:
            ctypes.CDLL(str(file.locate()))
            numba.config.THREADING_LAYER = "tbb"
            return True
    return False


HAS_THREADS: Final = _load_threads()


def compiled(function: Function, shared: bool = False, exact: bool = False) -> Function:
    """The function as machine code, which runs without Python's lock.

    Parameters
    ----------
    shared
        Its `prange` by several threads.
    exact
        Every product and sum is rounded as it is written.
    """
    fast = False if exact else _FAST_MATH
    options = {"nogil": True, "fastmath": fast, "error_model": "numpy", "parallel": shared and HAS_THREADS}
    try:
        made: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # neither beside the source nor in the user's own folder may anything be written
        made = numba.njit(cache=False, **options)(function)
    return made


class BFloat16(ir.HalfType):  # type: ignore[misc]
    """The type that llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"


BFloat16._create_instance()


def has_feature(name: str) -> bool:
    """Whether code is made for this processor, and it has such instructions."""
    another = numba.config.CPU_NAME or numba.config.CPU_FEATURES
    return not another and bool(binding.get_host_cpu_features().get(name))


LANES: Final = 16 if has_feature("avx512f") else 8
"""Float32 numbers in a vector register, as of processors without AVX-512 half as many."""
_INDEX: Final = ir.IntType(64)
_BITS: Final = ir.IntType(32)
LINE: Final = 64
"""Bytes that memory gives at a time."""
_PREFETCH: Final = "llvm.prefetch.p0"


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: object, address: object) -> Any:
    """A number as a place in memory, for `numba.carray`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), build


@intrinsic  # type: ignore[untyped-decorator]
def float_of(typing: object, bits: object) -> Any:
    """The float32 of these 32 bits."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic  # type: ignore[untyped-decorator]
def widened(typing: object, element: object) -> Any:
    """An element of a tensor as float32, by the type that stands for the tensor's in `STORED`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return widen(builder, element, args[0])

    return types.float32(element), build


@intrinsic  # type: ignore[untyped-decorator]
def taken(typing: object, like: Any, element: Any) -> Any:
    """An element of a tensor for an array with elements like another: as it is, or as float32 where that is one."""
    widens = like == types.float32

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return widen(builder, element, args[1]) if widens else args[1]

    return (types.float32 if widens else element)(like, element), build


def widen(builder: Any, kind: object, element: Any) -> Any:
    """The same for who writes code for the compiler; `element` is one of numba's type `kind`, or a vector of them."""
    lanes = element.type.count if isinstance(element.type, ir.VectorType) else None

    def like_it(one: Any) -> Any:
        return one if lanes is None else ir.VectorType(one, lanes)

    single = like_it(ir.FloatType())
    if kind == types.uint16:
        places = ir.Constant(_BITS, 16) if lanes is None else ir.Constant(like_it(_BITS), [16] * lanes)
        return builder.bitcast(builder.shl(builder.zext(element, like_it(_BITS)), places), single)
    if kind == types.int16:
        return builder.fpext(builder.bitcast(element, like_it(ir.HalfType())), single)
    if kind == types.int8:
        return builder.sitofp(element, single)
    return element


def number(value: int) -> Any:
    """An index or an address that is known."""
    return ir.Constant(_INDEX, value)


def spread(builder: Any, element: Any, lanes: int) -> Any:
    """A vector of one element, so many times."""
    nothing = ir.Constant(ir.VectorType(element.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, element, ir.Constant(_BITS, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_BITS, lanes), None))


def fetch(builder: Any, address: Any) -> None:
    """Has the memory at an address brought nearer."""
    place = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [place, _BITS, _BITS, _BITS])
    # to be read, to be kept a while, and not to be run
    how = (ir.Constant(_BITS, number) for number in (0, 1, 1))
    builder.call(
        cgutils.get_or_insert_function(builder.module, kind, _PREFETCH), [builder.inttoptr(address, place), *how]
    )


@intrinsic  # type: ignore[untyped-decorator]
def fetched(typing: object, address: object) -> Any:
    """Has the memory at an address brought nearer, whatever stands there; nothing is waited for."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


@compiled
def fetch_all(address: int, nbytes: int) -> None:
    """Has so much memory from an address on brought nearer."""
    for line in range(0, nbytes, LINE):
        fetched(address + line)


def multiply_add(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """`total + left * right`, rounded once where the processor can."""
    return builder.fadd(total, builder.fmul(left, right, flags=("contract",)), flags=("contract",))


def loop(builder: Any, count: Any, first: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """What the values, `first` to begin with, have become after `body(index, values)` for each index below `count`."""
    before = builder.block
    head, inside, after = (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    index, *held = (builder.phi(value.type) for value in (count, *first))
    builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
    builder.position_at_end(inside)
    new = [builder.add(index, number(1)), *body(index, held)]
    builder.branch(head)
    for phi, at_first, then in zip((index, *held), (number(0), *first), new, strict=True):
        phi.add_incoming(at_first, before)
        phi.add_incoming(then, inside)
    builder.position_at_end(after)
    return held


@intrinsic  # type: ignore[untyped-decorator]
def narrowed(typing: object, like: Any, number: object) -> Any:
    """A float32 rounded to an element like another, a floating point one; the inverse of `widened`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if like == types.uint16:
            return _as_bfloat16(builder, args[1])
        if like == types.int16:
            return builder.bitcast(builder.fptrunc(args[1], ir.HalfType()), ir.IntType(16))
        return args[1]

    return like(like, types.float32), build


def _as_bfloat16(builder: Any, number: Any) -> Any:
    """To the nearest, of two the even one. Processors without an instruction for it would call a function that is not
    there."""
    wide, narrow = ir.IntType(32), ir.IntType(16)
    half, one, quiet = (ir.Constant(wide, value) for value in (0x7FFF, 1, 0x40))
    bits = builder.bitcast(number, wide)
    upper = builder.lshr(bits, ir.Constant(wide, 16))
    carried = builder.add(builder.add(bits, half), builder.and_(upper, one))
    rounded = builder.lshr(carried, ir.Constant(wide, 16))
    is_number = builder.fcmp_ordered("ord", number, number)
    return builder.trunc(builder.select(is_number, rounded, builder.or_(upper, quiet)), narrow)


STORED: Final = {
    torch.float32: np.empty(0, np.float32),
    torch.bfloat16: np.empty(0, np.uint16),
    torch.float16: np.empty(0, np.int16),
    torch.int8: np.empty(0, np.int8),
}
"""The types of tensors that loops can read, each with an array of what they read it as."""


def parts_for(enough: int) -> int:
    """Equal parts of some work: one for each thread, but no more than `enough`, of which each is worth waking one."""
    return max(1, min(torch.get_num_threads(), enough))


def readable(tensor: Tensor) -> bool:
    """Whether loops can read a tensor by its address: a plain one on the CPU, of a type in `STORED`."""
    return (
        tensor.is_cpu and tensor.dtype in STORED and tensor.stride(-1) == 1 and type(tensor) in (Tensor, nn.Parameter)
    )
