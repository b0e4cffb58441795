"""Where a layer's attention meets the residual stream: its decoder block, and its output projection."""

from __future__ import annotations

from collections.abc import Iterator

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
    for found_layer, _name, projection in _attentions(model):
        if found_layer != layer:
            continue
        if isinstance(projection, nn.Linear):
            return projection.weight.detach()
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
        named = (getattr(module, one, None) for one in _NAMES)
        found = next((one for one in named if isinstance(one, nn.Module)), None)
        if isinstance(layer, int) and found is not None:
            yield layer, name, found
