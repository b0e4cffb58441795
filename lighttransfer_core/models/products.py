"""Linear layers that multiply in the way that is quickest on this machine, on CPUs.

A decode step multiplies every weight with one row for each sequence. What a matrix library does with so few rows
differs by machine, element type and shape, up to fourfold, and which library is the quicker with many rows differs too.
So the product is chosen by trying the candidates on the weights themselves when a model is loaded. All of them compute
the same sums, in another order, from the weights as they are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lighttransfer_core.models.dots import can_multiply, can_multiply_too, dots, several_dots
from lighttransfer_core.threads import alone

Product = Callable[[Tensor, Tensor], Tensor]
"""Contiguous rows `[..., in]` and a weight `[out, in]` to `[..., out]`, contiguous."""
Times = dict[int, dict[Product, float]]
"""Seconds of each candidate, by the number of rows."""

MANY_ROWS: Final = 256
"""More are multiplied like so many."""

_TRIED_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, MANY_ROWS)
_MOST_WORK: Final = 1 << 29
"""Multiplications beyond which no product is tried: what was chosen for fewer rows serves."""
_ROUNDS: Final = 6
_BUDGET_S: Final = 0.01
"""For one candidate at one number of rows."""
_PAUSE_S: Final = 60e-6
"""Before each round: between its products a model does other things, and other threads fall asleep meanwhile."""
_WORTH: Final = 0.9
"""At one number of rows, a product must take less than this share of the library's own time."""


def library(rows: Tensor, weight: Tensor) -> Tensor:
    """The library's own."""
    return functional.linear(rows, weight)


def library_alone(rows: Tensor, weight: Tensor) -> Tensor:
    """The library's own, in one thread."""
    return alone(library, rows, weight)


def onednn(rows: Tensor, weight: Tensor) -> Tensor:
    """oneDNN's, where torch would ask another library."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return output


_CANDIDATES: Final[tuple[Product, ...]] = (library, library_alone, onednn, dots)
_MOST_ROWS: Final[dict[Product, int]] = {dots: 64, library_alone: 32}
"""Of those that are for few rows only."""


_GIVEN_THE_SAME: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linear layers that models give one tensor, in this order."""
_READY: Final = "_outputs_that_are_ready"
"""The attribute of that tensor in which their outputs wait for them."""


class QuickLinear(nn.Linear):
    """A linear layer with a product for each number of rows; made from one by changing its class.

    Attributes
    ----------
    together
        Layers that are given the same rows, it among them, or none: where they multiply by `dots`, the first to be
        called does so for all, which wakes the threads once.
    """

    products: dict[int, Product]
    together: tuple[QuickLinear, ...] = ()

    def forward(self, input: Tensor) -> Tensor:
        # a module finds its parameters through a function of Python's; one that is pruned has them elsewhere
        own = self._parameters
        weight, bias = (own[name] if name in own else getattr(self, name) for name in ("weight", "bias"))
        assert weight is not None
        output = None
        if not torch.is_grad_enabled():
            output = self._taken(input) if self.together else None
            if output is None:
                output = self._product(input, weight)
        if output is None:
            return functional.linear(input, weight, bias)
        return output if bias is None else output + bias

    def _product(self, input: Tensor, weight: Tensor) -> Tensor | None:
        """None where the library is to multiply."""
        rows = min(input.numel() // self.in_features, MANY_ROWS)
        product = self.products.get(rows)
        if product is None or input.dtype != weight.dtype:
            return None
        if product is dots and self.together and can_multiply(input, weight):
            return self._made_for_all(input, weight, rows)
        given = input.contiguous()
        return product(given, weight) if can(product, given, weight) else None

    def _made_for_all(self, input: Tensor, weight: Tensor, rows: int) -> Tensor:
        """The output; those of the other layers wait for them."""
        able = {self: weight}
        for one in self.together:
            if one is not self and one.products.get(rows) is dots and can_multiply_too(weight, other := one.weight):
                able[one] = other
        ready = dict(zip(able, several_dots(input, tuple(able.values())), strict=True))
        output = ready.pop(self)
        setattr(input, _READY, (_version(input), ready))
        return output

    def _taken(self, input: Tensor) -> Tensor | None:
        """The output that another layer has made of this tensor as it is; once."""
        waiting: tuple[int | None, dict[QuickLinear, Tensor]] | None = getattr(input, _READY, None)
        return waiting[1].pop(self, None) if waiting is not None and waiting[0] == _version(input) else None


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def use_quickest_products(model: nn.Module) -> None:
    """Gives the model's linear layers on the CPU the products that are quickest here."""
    by_shape: dict[tuple[torch.Size, torch.dtype], list[nn.Linear]] = {}
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.is_contiguous():
            by_shape.setdefault((module.weight.shape, module.weight.dtype), []).append(module)
    for modules in by_shape.values():
        products = quickest([module.weight.detach() for module in modules])
        for module in modules:
            module.__class__ = QuickLinear
            cast(QuickLinear, module).products = products
    for parent in model.modules():
        for names in _GIVEN_THE_SAME:
            found = [child for name in names if isinstance(child := getattr(parent, name, None), QuickLinear)]
            for module in found if len(found) > 1 else ():
                module.together = tuple(found)


@torch.no_grad()
def quickest(weights: Sequence[Tensor]) -> dict[int, Product]:
    """For each number of rows, the product that takes least time on these weights `[out, in]` of one shape.

    Numbers of rows for which the library's own is the quickest are left out.
    """
    return chosen({rows: _times(weights, rows) for rows in _tried_rows(weights[0])})


def chosen(times: Times) -> dict[int, Product]:
    """From the seconds that candidates took: others than the library's own where they are clearly quicker."""
    found: dict[int, Product] = {}
    seconds: dict[Product, float] = {library: 0.0}
    for rows in range(1, MANY_ROWS + 1):
        # between two that were tried, the one before
        seconds = times.get(rows, seconds)
        able = [one for one in seconds if rows <= _MOST_ROWS.get(one, rows)]
        best = min(able, key=lambda one: seconds[one])
        if seconds[best] < _WORTH * seconds[library]:
            found[rows] = best
    return found


def can(product: Product, rows: Tensor, weight: Tensor) -> bool:
    """Whether a product is for so many rows and such a weight."""
    if product in (dots, onednn) and not can_multiply(rows, weight):
        return False
    if product is onednn and not _onednn_knows(weight.dtype):
        return False
    most = _MOST_ROWS.get(product)
    return most is None or rows.numel() <= most * rows.shape[-1]


def _onednn_knows(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def _tried_rows(weight: Tensor) -> list[int]:
    return [rows for rows in _TRIED_ROWS if rows == 1 or rows * weight.numel() <= _MOST_WORK]


def _times(weights: Sequence[Tensor], rows: int) -> dict[Product, float]:
    given = torch.ones(rows, weights[0].shape[1], dtype=weights[0].dtype)
    return {one: _time(one, given, weights) for one in _CANDIDATES if can(one, given, weights[0])}


def _time(product: Product, rows: Tensor, weights: Sequence[Tensor]) -> float:
    """Seconds, the median; another weight each time, as in a model, so that none is in the processor's cache."""
    times: list[float] = []
    # the first is slow, for other reasons
    product(rows, weights[0])
    began = time.perf_counter()
    for turn in range(1, _ROUNDS + 1):
        weight = weights[turn % len(weights)]
        start = time.perf_counter() + _PAUSE_S
        while time.perf_counter() < start:
            pass
        product(rows, weight)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > _BUDGET_S:
            break
    return statistics.median(times)
