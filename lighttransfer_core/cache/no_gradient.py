"""What a cache keeps has no gradient, so there is none through it: said when somebody asks for one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from lighttransfer_core.errors import UnsupportedRequestError


def without_gradient(output: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """The output, whose gradient is refused where one of the inputs would have one."""
    trained = [tensor for tensor in inputs if tensor.requires_grad]
    if not trained or not torch.is_grad_enabled():
        return output
    return cast(Tensor, _Refused.apply(output, *trained))  # type: ignore[no-untyped-call]


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, output: Tensor, *_inputs: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(_: Any, *_gradients: Tensor) -> Any:
        raise UnsupportedRequestError(
            "gradients through a hybrid cache would be wrong: call the model without past_key_values for those, and "
            "with it inside torch.no_grad()."
        )
