"""The output projection of each attention layer: how what the heads gathered enters the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from lighttransfer_core.errors import UnsupportedModelError

_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")
"""What transformers' models call it."""


def output_projection(model: nn.Module, layer: int) -> Tensor:
    """The weight `[hidden, H * D]` of a layer's output projection.

    Raises
    ------
    UnsupportedModelError
        There is none that is a plain linear layer, as in a model that is quantised or split over processes.
    """
    for module in model.modules():
        if getattr(module, "layer_idx", None) == layer:
            for name in _NAMES:
                found = getattr(module, name, None)
                if isinstance(found, nn.Linear):
                    return found.weight.detach()
    raise UnsupportedModelError(
        f"layer {layer} has no plain output projection, which this metric reads: choose a metric of attention mass."
    )
