"""Linear layers that are quick for the few rows of a decode step, on CPUs.

A step multiplies every weight with one row for each sequence. What the matrix library does with so few rows differs by
machine, element type and shape, up to fourfold, so the product is chosen by trying the candidates on the weights
themselves when a model is loaded. All candidates compute the same sums, in another order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Product = Callable[[Tensor, Tensor], Tensor]
"""Rows `[r, in]` and a weight `[out, in]` to `[r, out]`, contiguous; of one row also to `[out]`."""

MOST_ROWS: Final = 8
"""With more the library's own product is as quick as any."""

_TRIED_ROWS: Final = (1, 2, 3, 4, 6, 8)
_SPLITS: Final = 4
_ROUNDS: Final = 6
_BUDGET_S: Final = 0.03
"""For one candidate at one number of rows."""
_WORTH: Final = 0.8
"""A candidate must take less than this share of the library's own time."""


def linear(rows: Tensor, weight: Tensor) -> Tensor:
    """The library's own."""
    return functional.linear(rows, weight)


def transposed(rows: Tensor, weight: Tensor) -> Tensor:
    """The weight on the left; attention kernels would misread a result that is left as a transposed view."""
    return torch.mm(weight, rows.t()).t().contiguous()


def vector(rows: Tensor, weight: Tensor) -> Tensor:
    """Of one row."""
    return torch.mv(weight, rows.view(-1))


def split(rows: Tensor, weight: Tensor) -> Tensor:
    """Of one row, the weight in equal parts, each a product of its own for another thread."""
    outputs, inputs = weight.shape
    parts = weight.view(_SPLITS, outputs // _SPLITS, inputs)
    return torch.bmm(parts, rows.t().unsqueeze(0).expand(_SPLITS, inputs, 1)).view(1, outputs)


class FewRowsLinear(nn.Linear):
    """A linear layer with a product for each small number of rows; made from one by changing its class."""

    products: dict[int, Product]

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        product = self.products.get(rows)
        if product is None or input.dtype != self.weight.dtype or torch.is_grad_enabled():
            return functional.linear(input, self.weight, self.bias)
        output = product(input.reshape(rows, self.in_features), self.weight)
        if self.bias is not None:
            output = output + self.bias
        return output.view(*input.shape[:-1], self.out_features)


def use_few_row_products(model: nn.Module) -> None:
    """Gives the model's linear layers on the CPU the products that are quickest here."""
    by_shape: dict[tuple[torch.Size, torch.dtype], list[nn.Linear]] = {}
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.is_contiguous():
            by_shape.setdefault((module.weight.shape, module.weight.dtype), []).append(module)
    for modules in by_shape.values():
        products = quickest([module.weight.detach() for module in modules])
        for module in modules:
            module.__class__ = FewRowsLinear
            cast(FewRowsLinear, module).products = products


@torch.no_grad()
def quickest(weights: Sequence[Tensor]) -> dict[int, Product]:
    """For each small number of rows, the product that takes least time on these weights `[out, in]` of one shape.

    Numbers of rows for which the library's own is the quickest are left out.
    """
    found: dict[int, Product] = {}
    best: Product = linear
    for rows in range(1, MOST_ROWS + 1):
        if rows in _TRIED_ROWS:
            best = _quickest(weights, rows)
        # between two that were tried, the one before
        if best is not linear and _can(best, rows, weights[0]):
            found[rows] = best
    return found


def _quickest(weights: Sequence[Tensor], rows: int) -> Product:
    given = torch.ones(rows, weights[0].shape[1], dtype=weights[0].dtype)
    candidates = [one for one in (linear, transposed, vector, split) if _can(one, rows, weights[0])]
    times = {candidate: _time(candidate, given, weights) for candidate in candidates}
    best = min(candidates, key=lambda one: times[one])
    return best if times[best] < _WORTH * times[linear] else linear


def _can(product: Product, rows: int, weight: Tensor) -> bool:
    if product is split:
        return rows == 1 and weight.shape[0] % _SPLITS == 0
    return rows == 1 or product is not vector


def _time(product: Product, rows: Tensor, weights: Sequence[Tensor]) -> float:
    """Seconds at best; another weight each time, as in a model, so that none is in the processor's cache."""
    times: list[float] = []
    began = time.perf_counter()
    for turn in range(_ROUNDS + 1):
        weight = weights[turn % len(weights)]
        start = time.perf_counter()
        product(rows, weight)
        times.append(time.perf_counter() - start)
        if turn and time.perf_counter() - began > _BUDGET_S:
            break
    return min(times[1:])
