"""Weights in 8 bits, activations as they are: half the bytes of a decode step's weights, for about the same numbers.

Each row of a linear layer's weight becomes integers from -127 to 127 and one factor. On a CPU few rows are multiplied
with the integers directly; many rows, as in a prefill, with the weight restored. Embeddings and norms stay as they are.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from lighttransfer_core.models.dots import can_multiply, float32_dots

_MOST: Final = 127
_FEW_ROWS: Final = 32
"""More are multiplied sooner with the weight restored."""


class Int8Linear(nn.Module):
    """A linear layer whose weight is `[out, in]` integers and `[out]` factors."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        integers, scale = quantised(layer.weight.detach())
        self.weight = nn.Parameter(integers, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        # no gradient flows through products that read by address
        if input.numel() > _FEW_ROWS * self.in_features or (input.requires_grad and torch.is_grad_enabled()):
            return functional.linear(input, self.restored(), self.bias)
        given, weight, bias = input.contiguous(), self.weight, self.bias
        if not can_multiply(given, weight):
            return functional.linear(input, self.restored(), bias)
        output = (float32_dots(given, weight) * self.scale).to(input.dtype)
        return output if bias is None else output + bias

    def restored(self) -> Tensor:
        """The weight `[out, in]` that the integers stand for."""
        return self.weight.to(self.scale.dtype) * self.scale[:, None]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers `[out, in]` and factors `[out]` in the weight's type; a row of zeros has the factor 1."""
    wide = weight.float()
    scale = wide.abs().amax(dim=1) / _MOST
    scale = torch.where(scale == 0, 1.0, scale).to(weight.dtype)
    integers = (wide / scale.float()[:, None]).round().clamp(-_MOST, _MOST).to(torch.int8)
    return integers.contiguous(), scale


def use_int8_weights(model: nn.Module) -> None:
    """Puts an `Int8Linear` in the place of every linear layer."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child))
