"""Linear layers that multiply in the way that is quickest on this machine, on CPUs.

A decode step multiplies every weight with one row for each sequence. What the matrix library does with so few rows
differs by machine, element type and shape, up to fourfold, and a copy of the weight in the layout that oneDNN prefers
is often quicker for any number of rows. So the product is chosen by trying the candidates on the weights themselves
when a model is loaded. All candidates compute the same sums, in another order.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lighttransfer_core.machine_code import readable
from lighttransfer_core.models.dots import dots
from lighttransfer_core.threads import alone

Product = Callable[[Tensor, Tensor], Tensor]
"""Contiguous rows `[r, in]` and a weight `[out, in]` to `[r, out]`, contiguous."""
Times = dict[int, dict[Product, float]]
"""Seconds of each candidate, by the number of rows."""

MANY_ROWS: Final = 256
"""More are multiplied like so many."""

_TRIED_ROWS: Final = (1, 2, 4, 8, 16, 32, MANY_ROWS)
_MOST_WORK: Final = 1 << 29
"""Multiplications beyond which no product is tried: what was chosen for fewer rows serves."""
_LAYOUT_ROWS: Final = 32
"""The number of rows that the layout is asked for; it serves all others as well."""
_ROUNDS: Final = 6
_BUDGET_S: Final = 0.01
"""For one candidate at one number of rows."""
_PAUSE_S: Final = 60e-6
"""Before each round: between its products a model does other things, and other threads fall asleep meanwhile."""
_WORTH_A_COPY: Final = 0.95
"""Over all numbers of rows, what is quickest must with copies take less than this share of its time without."""
_WORTH: Final = 0.9
"""At one number of rows, a product must take less than this share of the usual one's time."""


def library(rows: Tensor, weight: Tensor) -> Tensor:
    """The library's own."""
    return functional.linear(rows, weight)


def packed(rows: Tensor, weight: Tensor) -> Tensor:
    """oneDNN's, of a weight in the layout that it prefers."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return output


def library_alone(rows: Tensor, weight: Tensor) -> Tensor:
    """The library's own, in one thread."""
    return alone(library, rows, weight)


def packed_alone(rows: Tensor, weight: Tensor) -> Tensor:
    """oneDNN's, in one thread."""
    return alone(packed, rows, weight)


_OF_COPIES: Final[tuple[Product, ...]] = (packed, packed_alone)
_OF_WEIGHTS: Final[tuple[Product, ...]] = (library, library_alone, dots)
_MOST_ROWS: Final[dict[Product, int]] = {dots: 8, library_alone: 32, packed_alone: 32}
"""Of those that are for few rows only."""


class Packed:
    """A weight's copy in oneDNN's layout, good for as long as the weight itself has not changed.

    Copied or pickled with its layer it is left behind, since the layout cannot be; the layer then goes without.
    """

    def __init__(self, weight: Tensor | None = None) -> None:
        self.weight = weight
        self.nbytes = 0 if weight is None else weight.nbytes
        self._of: tuple[int, int] | None = None

    @classmethod
    def of(cls, weight: Tensor) -> Packed:
        copy = cls(torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _LAYOUT_ROWS))
        copy._of = _state(weight)
        return copy

    def while_of(self, weight: Tensor) -> Tensor | None:
        """The copy, if it is this weight's as it is now."""
        return self.weight if self._of == _state(weight) else None

    def __reduce__(self) -> tuple[type[Packed], tuple[()]]:
        return Packed, ()


class QuickLinear(nn.Linear):
    """A linear layer with a product for each number of rows; made from one by changing its class."""

    products: dict[int, Product]
    packed: Packed

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        product = self.products.get(min(rows, MANY_ROWS))
        weight = self.packed.while_of(self.weight) if product in _OF_COPIES else self.weight
        if product is None or weight is None or input.dtype != weight.dtype or torch.is_grad_enabled():
            return functional.linear(input, self.weight, self.bias)
        given = input.reshape(rows, self.in_features).contiguous()
        output = (product if can(product, given, weight) else library)(given, weight)
        if self.bias is not None:
            output = output + self.bias
        return output.view(*input.shape[:-1], self.out_features)


def use_quickest_products(model: nn.Module, room_nbytes: int) -> None:
    """Gives the model's linear layers on the CPU the products that are quickest here.

    Parameters
    ----------
    room_nbytes
        What copies of weights may take together; shapes for which it does not suffice go without.
    """
    by_shape: dict[tuple[torch.Size, torch.dtype], list[nn.Linear]] = {}
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.is_contiguous():
            by_shape.setdefault((module.weight.shape, module.weight.dtype), []).append(module)
    for modules in by_shape.values():
        room_nbytes -= _use(modules, room_nbytes)


def room_for_copies(left_nbytes: int) -> int:
    """What copies may take of the memory that is left beside the weights: most of it is for prompts."""
    return left_nbytes // 4


def packed_nbytes(model: nn.Module) -> int:
    """Bytes that a model's weights hold beyond themselves, in other layouts."""
    return sum(module.packed.nbytes for module in model.modules() if isinstance(module, QuickLinear))


def drop_copies(model: nn.Module) -> None:
    """Gives their memory back; what was multiplied with them is the library's again."""
    for module in model.modules():
        if isinstance(module, QuickLinear):
            module.packed = Packed()


def _use(modules: Sequence[nn.Linear], room_nbytes: int) -> int:
    """Of layers of one shape; returns the bytes that were taken."""
    weights = [module.weight for module in modules]
    fits = can_pack(weights[0]) and sum(weight.nbytes for weight in weights) <= room_nbytes
    copies = [Packed.of(weight) if fits else Packed() for weight in weights]
    layouts = [copy.weight for copy in copies if copy.weight is not None]
    products = quickest([weight.detach() for weight in weights], layouts)
    used = not set(_OF_COPIES).isdisjoint(products.values())
    for module, copy in zip(modules, copies, strict=True):
        module.__class__ = QuickLinear
        quick = cast(QuickLinear, module)
        quick.products, quick.packed = products, copy if used else Packed()
    return sum(cast(QuickLinear, module).packed.nbytes for module in modules)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN computes with such weights here."""
    if not torch.backends.mkldnn.is_available() or weight.is_inference():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


@torch.no_grad()
def quickest(weights: Sequence[Tensor], layouts: Sequence[Tensor] = ()) -> dict[int, Product]:
    """For each number of rows, the product that takes least time on these weights `[out, in]` of one shape.

    Numbers of rows for which the library's own is the quickest are left out.

    Parameters
    ----------
    layouts
        The same weights, packed; none: that product is not tried.
    """
    return chosen({rows: _times(weights, layouts, rows) for rows in _tried_rows(weights[0])})


def chosen(times: Times) -> dict[int, Product]:
    """From the seconds that candidates took: a usual product, and others where they are clearly quicker."""
    copies = _pays(times)
    usual = packed if copies else library
    found: dict[int, Product] = {}
    best: Product = usual
    for rows in range(1, MANY_ROWS + 1):
        if rows in times:
            seconds = {one: taken for one, taken in times[rows].items() if copies or one not in _OF_COPIES}
            best = min(seconds, key=lambda one: seconds[one])
            best = best if seconds[best] < _WORTH * seconds[usual] else usual
        # between two that were tried, the one before
        product = best if rows <= _MOST_ROWS.get(best, rows) else usual
        if product is not library:
            found[rows] = product
    return found


def _pays(times: Times) -> bool:
    """Whether copies of the weights, beside the rest, save enough over all numbers of rows."""
    ratios = [
        min(seconds.values()) / min(taken for one, taken in seconds.items() if one not in _OF_COPIES)
        for seconds in times.values()
    ]
    return math.prod(ratios) ** (1 / len(ratios)) < _WORTH_A_COPY


def _tried_rows(weight: Tensor) -> list[int]:
    return [rows for rows in _TRIED_ROWS if rows == 1 or rows * weight.numel() <= _MOST_WORK]


def _times(weights: Sequence[Tensor], layouts: Sequence[Tensor], rows: int) -> dict[Product, float]:
    given = torch.ones(rows, weights[0].shape[1], dtype=weights[0].dtype)
    times = {one: _time(one, given, weights) for one in _OF_WEIGHTS if can(one, given, weights[0])}
    return times | {one: _time(one, given, layouts) for one in _OF_COPIES if layouts and can(one, given, weights[0])}


def can(product: Product, rows: Tensor, weight: Tensor) -> bool:
    """Whether a product is for so many rows and such a weight."""
    if product is dots and not (readable(rows) and readable(weight) and weight.is_contiguous()):
        return False
    most = _MOST_ROWS.get(product)
    return most is None or rows.shape[0] <= most


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


def _state(weight: Tensor) -> tuple[int, int]:
    """What changes with a weight's numbers."""
    return weight.data_ptr(), weight._version
