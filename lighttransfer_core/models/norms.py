"""Root mean square norms in one loop, on CPUs.

Written in torch's operations a norm is seven of them, and a decode step, which has two norms for each layer, waits for
the calls rather than for what they compute. A module is taken for such a norm by what it returns, whatever its name.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, cast

import numpy as np
import torch
from numba import carray, prange
from torch import Tensor, nn

from lighttransfer_core.machine_code import STORED, compiled, narrowed, parts_for, pointer, readable, widened

_PART_ELEMENTS: Final = 1 << 16
"""A thread is woken for no fewer."""
_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)


class QuickNorm(nn.Module):
    """A root mean square norm of the last dimension; made from one by changing its class."""

    weight: nn.Parameter
    quick_eps: float

    def forward(self, hidden: Tensor) -> Tensor:
        norm = plain if torch.is_grad_enabled() or not can_norm(hidden, self.weight) else quick
        return norm(hidden, self.weight, self.quick_eps)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.quick_eps}"


def use_quick_norms(model: nn.Module) -> None:
    """Gives the model's root mean square norms on the CPU the loop."""
    for module in model.modules():
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if isinstance(eps, float) and _has_the_parts(module) and _is_plain(module, eps):
            module.__class__ = QuickNorm
            cast(QuickNorm, module).quick_eps = eps


def can_norm(hidden: Tensor, weight: Tensor) -> bool:
    """Whether these are what the loop, which reads by address, expects."""
    agree = hidden.dtype == weight.dtype and hidden.shape[-1:] == weight.shape
    return agree and readable(hidden) and readable(weight)


def plain(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The norm in torch's operations: computed in float32, and rounded before the weight is applied."""
    wide = hidden.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(hidden.dtype)


def quick(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same by the loop."""
    hidden = hidden.contiguous()
    return norm_in_parts(hidden, weight, eps, parts_for(hidden.numel() // _PART_ELEMENTS))


def make_ready(dtype: torch.dtype) -> None:
    """Brings the loops for this type, so that no step waits for them."""
    if dtype in _DTYPES:
        for parts in (1, 2):
            norm_in_parts(torch.zeros(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype), 1.0, parts)


def norm_in_parts(hidden: Tensor, weight: Tensor, eps: float, parts: int) -> Tensor:
    """Of a contiguous tensor, the rows in so many equal parts."""
    output = torch.empty_like(hidden)
    size = weight.shape[0]
    loops = _by_several if parts > 1 else _by_one_thread
    addresses = hidden.data_ptr(), weight.data_ptr(), output.data_ptr()
    loops(hidden.numel() // size, size, *addresses, STORED[hidden.dtype], eps, parts)
    return output


def _has_the_parts(module: nn.Module) -> bool:
    """One weight for each element and nothing else, and one tensor to norm."""
    named = dict(module.named_parameters())
    weight = named.get("weight")
    return (
        len(named) == 1
        and weight is not None
        and weight.dim() == 1
        and weight.is_cpu
        and weight.is_contiguous()
        and weight.dtype in _DTYPES
        and not [*module.buffers(), *module.children()]
        and "forward" not in vars(module)
        and len(inspect.signature(module.forward).parameters) == 1
    )


@torch.no_grad()
def _is_plain(module: nn.Module, eps: float) -> bool:
    weight = cast(Tensor, module.weight)
    # small numbers too, for which eps matters
    scales = torch.tensor([[1e-3], [1.0], [30.0]])
    given = (scales * torch.linspace(-2.0, 3.0, len(weight)).square().sin()).to(weight.dtype)
    return torch.equal(module(given), plain(given, weight, eps))


@compiled
def share(
    part: Any, parts: int, count: int, size: int, given: int, weights: int, made: int, like: Any, eps: Any
) -> None:
    """One of the equal parts of the rows."""
    rows = carray(pointer(given), (count, size), like.dtype)
    weight = carray(pointer(weights), (size,), like.dtype)
    output = carray(pointer(made), (count, size), like.dtype)
    for row in range(part * count // parts, (part + 1) * count // parts):
        total = np.float32(0)
        for i in range(size):
            element = widened(rows[row, i])
            total += element * element
        factor = np.float32(1) / np.sqrt(total / np.float32(size) + eps)
        for i in range(size):
            rounded = narrowed(weight[i], widened(rows[row, i]) * factor)
            output[row, i] = narrowed(weight[i], widened(weight[i]) * widened(rounded))


def _alone(count: int, size: int, given: int, weights: int, made: int, like: Any, eps: float, parts: int) -> None:
    for part in range(parts):
        share(part, parts, count, size, given, weights, made, like, np.float32(eps))


def _shared(count: int, size: int, given: int, weights: int, made: int, like: Any, eps: float, parts: int) -> None:
    for part in prange(parts):
        # a signed number, as above: for each kind of number the compiler makes all of it anew
        share(np.int64(part), parts, count, size, given, weights, made, like, np.float32(eps))


_by_one_thread: Final = compiled(_alone)
_by_several: Final = compiled(_shared, shared=True)
