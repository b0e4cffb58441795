"""Feed-forward layers that take a long prompt a stretch of tokens at a time, on CPUs.

What they compute on the way is the largest of a prefill. Over a whole prompt it outgrows what the C library keeps for
reuse, so that for each layer the system clears every page of it anew; in stretches it stays in the processor's cache.
A module is taken for such a layer by what it returns, whatever its name. It can be copied and its weights saved; it
cannot be pickled.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

_AT_ONCE: Final = 8 << 20
"""Bytes of the widest that is computed of a stretch."""
_FEWEST_ROWS: Final = 256
"""Products of fewer take longer for each row."""
_ROWS: Final = "rows_at_once"
"""The attribute of such a layer that says how many tokens a stretch has."""
_ALIKE: Final = 0.05
"""Of an output's length, the most by which rounding makes it another."""


def use_stretches(model: nn.Module) -> None:
    """Gives the model's feed-forward layers on the CPU their tokens in stretches."""
    made: dict[type[nn.Module], type[nn.Module]] = {}
    for module in model.modules():
        kind = type(module)
        if _has_the_parts(module) and _is_alike_for_all_tokens(module):
            made.setdefault(kind, _in_stretches(kind))
            module.__class__ = made[kind]
            setattr(module, _ROWS, _rows_at_once(module))


def _in_stretches(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of module, which computes many tokens in about equal parts."""

    def forward(self: nn.Module, hidden: Tensor) -> Tensor:
        size, most = hidden.shape[-1], vars(self)[_ROWS]
        rows = hidden.numel() // size
        if rows <= most or torch.is_grad_enabled():
            return whole(self, hidden)
        given, output = hidden.reshape(1, rows, size), hidden.new_empty(1, rows, size)
        parts = math.ceil(rows / most)
        for some, into in zip(given.tensor_split(parts, dim=1), output.tensor_split(parts, dim=1), strict=True):
            into.copy_(whole(self, some))
        return output.view(hidden.shape)

    whole: Callable[[nn.Module, Tensor], Tensor] = kind.forward
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _rows_at_once(module: nn.Module) -> int:
    widest = max(linear.out_features * linear.weight.element_size() for linear in _linears(module))
    return max(_FEWEST_ROWS, _AT_ONCE // widest)


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [child for child in module.children() if isinstance(child, nn.Linear)]


def _has_the_parts(module: nn.Module) -> bool:
    """Linear layers there and back, nothing else with weights, and one tensor to compute from."""
    linears = _linears(module)
    own = {id(weight) for linear in linears for weight in linear.parameters()}
    return (
        len(linears) > 1
        and all(linear.weight.is_cpu for linear in linears)
        and all(id(weight) in own for weight in module.parameters())
        and not [*module.buffers()]
        and linears[0].in_features == linears[-1].out_features
        and "forward" not in vars(module)
        and len(inspect.signature(module.forward).parameters) == 1
    )


@torch.no_grad()
def _is_alike_for_all_tokens(module: nn.Module) -> bool:
    """Whether a token's output depends on no other token."""
    first = _linears(module)[0]
    given = torch.linspace(-40.0, 40.0, 4 * first.in_features).sin().view(1, 4, -1).to(first.weight.dtype)
    try:
        output = module(given)
    except RuntimeError:
        # it takes tokens of another size
        return False
    if not isinstance(output, Tensor) or output.shape != given.shape or output.dtype != given.dtype:
        return False
    each = torch.cat([module(given[:, [token]]) for token in range(4)], dim=1)
    return bool((output - each).float().norm() <= _ALIKE * output.float().norm())
