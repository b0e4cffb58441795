"""Where a layer's attention meets the residual stream: its decoder block, and its output projection."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lighttransfer_core.errors import UnsupportedModelError

_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")
"""What transformers' models call it."""


def output_projections(model: nn.Module) -> Callable[[int], Tensor]:
    """From a layer to the weight `[hidden, H * D]` of its output projection.

    What it returns raises UnsupportedModelError where there is none that is a plain linear layer, as in a model that is
    quantised or split over processes.
    """
    found = {layer: projection for layer, _name, projection in _attentions(model)}
    return lambda layer: _weight(found.get(layer), layer)


def _weight(projection: nn.Module | None, layer: int) -> Tensor:
    if isinstance(projection, nn.Linear):
        return projection.weight.detach()
    if isinstance(projection, Conv1D):
        return projection.weight.detach().t()
    restored = getattr(projection, "restored", None)
    if restored is not None:
        weight: Tensor = restored()
        return weight.detach()
    raise UnsupportedModelError(
        f"layer {layer} has no plain output projection, which this metric reads: choose a metric of attention mass."
    )


def decoder_blocks(model: nn.Module) -> dict[int, nn.Module]:
    """By layer, the module that the residual stream enters: the one around the layer's attention."""
    return {layer: model.get_submodule(name.rpartition(".")[0]) for layer, name, _ in _attentions(model)}


def attention_modules(model: nn.Module) -> dict[int, nn.Module]:
    """By layer, the module whose output is added to the residual stream."""
    return {layer: model.get_submodule(name) for layer, name, _ in _attentions(model)}


def _attentions(model: nn.Module) -> Iterator[tuple[int, str, nn.Module]]:
    """Layer, name and output projection of every attention module."""
    for name, module in model.named_modules():
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int):
            continue
        named = (getattr(module, one, None) for one in _NAMES)
        found = next((one for one in named if isinstance(one, nn.Module)), None)
        if found is not None:
            yield layer, name, found
