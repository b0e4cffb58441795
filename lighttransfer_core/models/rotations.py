"""Queries and keys turned to their positions in one loop, on CPUs.

Written in torch's operations that is sixteen of them for each layer, which a decode step waits for. transformers'
attention modules call one function for it, by the same name in every model's file; a module is given the loop where
that function computes what the loop does, to the bit. Such a module can be copied and its weights saved; it cannot be
pickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType
from typing import Any, Final

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor, nn

from lighttransfer_core.machine_code import STORED, compiled, narrowed, parts_for, pointer, readable, widened

Rotation = Callable[..., tuple[Tensor, Tensor]]
"""Of a query, a key, cosines and sines the query and the key at their positions."""

_NAME: Final = "apply_rotary_pos_emb"
_GIVEN: Final = ("q", "k", "cos", "sin")
"""What it must be given, everything else being optional."""
_PART_ELEMENTS: Final = 1 << 16
"""A thread is woken for no fewer."""
_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)


def use_quick_rotations(model: nn.Module) -> None:
    """Gives the model's attention modules on the CPU the loop."""
    quick: dict[tuple[type[nn.Module], torch.dtype], type[nn.Module]] = {}
    for module in model.modules():
        kind, weight = type(module), next(filter(Tensor.is_floating_point, module.parameters()), None)
        rotation = _rotation_of(kind)
        if rotation is None or weight is None or not weight.is_cpu or "forward" in vars(module):
            continue
        if (kind, weight.dtype) not in quick:
            known = weight.dtype in _DTYPES and _is_plain(rotation, weight.dtype)
            quick[kind, weight.dtype] = _with_rotation(kind, quick_rotation(rotation)) if known else kind
        module.__class__ = quick[kind, weight.dtype]


def quick_rotation(otherwise: Rotation) -> Rotation:
    """The loop, and what computes the same of tensors that it cannot read."""

    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        if more or named or torch.is_grad_enabled() or not can_rotate(q, k, cos, sin):
            return otherwise(q, k, cos, sin, *more, **named)
        return rotate(q, k, cos, sin)

    return apply_rotary_pos_emb


def can_rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether these are what the loop, which reads by address, expects: heads beside each other for each token."""
    if not all(map(readable, (query, key, cos, sin))) or query.dim() != 4 or key.dim() != 4:
        return False
    (batch, _, tokens, size), turns = query.shape, cos.shape
    agree = turns in ((1, tokens, size), (batch, tokens, size)) and key.shape == (batch, key.shape[1], tokens, size)
    if not agree or sin.shape != turns or size % 2 or not cos.is_contiguous() or not sin.is_contiguous():
        return False
    alike = query.dtype == key.dtype == cos.dtype == sin.dtype
    return alike and _tokens_apart(query) is not None and _tokens_apart(key) is not None


def _tokens_apart(heads: Tensor) -> int | None:
    """How many elements the tokens of all sequences lie apart; None where they or the heads lie otherwise."""
    _, count, tokens, size = heads.shape
    sequences, within, apart, _ = heads.stride()
    apart = sequences if tokens == 1 else apart
    return apart if within == size and sequences == tokens * apart and apart >= count * size else None


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Of a query `[B, H, T, D]`, a key `[B, Hk, T, D]` and cosines and sines `[1 or B, T, D]`."""
    return rotate_in_parts(query, key, cos, sin, parts_for(query.numel() // _PART_ELEMENTS))


def rotate_in_parts(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The same, the tokens in so many equal parts."""
    (batch, heads, tokens, size), key_heads = query.shape, key.shape[1]
    apart = _tokens_apart(query), _tokens_apart(key)
    made = [query.new_empty(batch, tokens, count, size) for count in (heads, key_heads)]
    loops = _by_several if parts > 1 else _by_one_thread
    loops(
        (batch * tokens, cos.shape[0] * tokens, heads, key_heads, size, *apart),
        (query.data_ptr(), key.data_ptr(), cos.data_ptr(), sin.data_ptr(), made[0].data_ptr(), made[1].data_ptr()),
        STORED[query.dtype],
        parts,
    )
    return made[0].transpose(1, 2), made[1].transpose(1, 2)


def make_ready(dtype: torch.dtype) -> None:
    """Brings the loops for this type, so that no step waits for them."""
    if dtype in _DTYPES:
        heads, turns = torch.zeros(1, 1, 1, 2, dtype=dtype), torch.zeros(1, 1, 2, dtype=dtype)
        for parts in (1, 2):
            rotate_in_parts(heads, heads, turns, turns, parts)


def _rotation_of(kind: type[nn.Module]) -> Rotation | None:
    """What a module's forward calls by the name; None where it does not, or calls it with something else."""
    forward = kind.forward
    if not isinstance(forward, FunctionType) or _NAME not in forward.__code__.co_names or forward.__closure__:
        return None
    rotation = forward.__globals__.get(_NAME)
    if not isinstance(rotation, FunctionType):
        return None
    given = list(inspect.signature(rotation).parameters.values())
    return rotation if tuple(one.name for one in given if one.default is one.empty) == _GIVEN else None


def _with_rotation(kind: type[nn.Module], rotation: Rotation) -> type[nn.Module]:
    """The same kind of module, calling another function by the name."""
    forward = kind.forward
    assert isinstance(forward, FunctionType)
    made = FunctionType(forward.__code__, {**forward.__globals__, _NAME: rotation}, argdefs=forward.__defaults__)
    made.__kwdefaults__ = forward.__kwdefaults__
    update_wrapper(made, forward)
    return type(kind.__name__, (kind,), {"forward": made, "__module__": kind.__module__})


@torch.no_grad()
def _is_plain(rotation: Rotation, dtype: torch.dtype) -> bool:
    angles = torch.linspace(-40.0, 40.0, 240).sin()
    query, key = (angles[:n].view(1, 3, -1, 8).transpose(1, 2).to(dtype) for n in (96, 48))
    cos, sin = (angles[n : n + 24].view(1, 3, 8).to(dtype) for n in (100, 150))
    try:
        expected = rotation(query, key, cos, sin)
    except RuntimeError:
        # it takes cosines of another shape
        return False
    found = rotate(query, key, cos, sin)
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def _exact(function: Any) -> Any:
    return compiled(function, exact=True)


@_exact
def turn_head(given: Any, cos: Any, sin: Any, made: Any) -> None:
    """Each element of the first half with the one as far into the second, rounded where torch rounds."""
    half = len(made) // 2
    for i in range(half):
        one, other = given[i], given[half + i]
        left = narrowed(one, widened(one) * widened(cos[i]))
        right = narrowed(one, -widened(other) * widened(sin[i]))
        made[i] = narrowed(one, widened(left) + widened(right))
        left = narrowed(one, widened(other) * widened(cos[half + i]))
        right = narrowed(one, widened(one) * widened(sin[half + i]))
        made[half + i] = narrowed(one, widened(left) + widened(right))


@_exact
def share(part: Any, parts: int, shape: Any, places: Any, like: Any) -> None:
    """One of the equal parts of the tokens."""
    tokens, turns, heads, key_heads, size, apart, keys_apart = shape
    query = carray(pointer(places[0]), (tokens, apart), like.dtype)
    key = carray(pointer(places[1]), (tokens, keys_apart), like.dtype)
    cos = carray(pointer(places[2]), (turns, size), like.dtype)
    sin = carray(pointer(places[3]), (turns, size), like.dtype)
    new_query = carray(pointer(places[4]), (tokens, heads, size), like.dtype)
    new_key = carray(pointer(places[5]), (tokens, key_heads, size), like.dtype)
    for token in range(part * tokens // parts, (part + 1) * tokens // parts):
        turn = token % turns
        for head in range(heads):
            turn_head(query[token, head * size :], cos[turn], sin[turn], new_query[token, head])
        for head in range(key_heads):
            turn_head(key[token, head * size :], cos[turn], sin[turn], new_key[token, head])


def _alone(shape: Any, places: Any, like: Any, parts: int) -> None:
    for part in range(parts):
        share(part, parts, shape, places, like)


def _shared(shape: Any, places: Any, like: Any, parts: int) -> None:
    for part in prange(parts):
        # a signed number, as above: for each kind of number the compiler makes all of it anew
        share(np.int64(part), parts, shape, places, like)


_by_one_thread: Final = compiled(_alone, exact=True)
_by_several: Final = compiled(_shared, shared=True, exact=True)
