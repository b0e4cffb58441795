"""The exact reference: the whole text through the model's own eager attention, uncached, with masks made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lighttransfer_core.attention import attention_layers
from lighttransfer_core.types import Window


@torch.no_grad()
def masked_logits(
    model: PreTrainedModel,
    ids: Tensor,
    prompt_length: int,
    lazy: tuple[int, ...],
    window: Window,
    pads: tuple[int, ...] | None = None,
) -> Tensor:
    """Logits `[B, T, V]` of one uncached pass whose lazy layers' rows after the prompt see sinks and window only.

    With `pads`, each row's first tokens are padding: unseen, and not counted in positions or sinks.
    """
    starts = torch.tensor(pads or (0,) * ids.shape[0])
    positions = (torch.arange(ids.shape[1])[None] - starts[:, None]).clamp(min=0)
    kinds = attention_layers(model.config)
    masks = [
        hand_made_mask(ids.shape[1], prompt_length, starts, window if layer in lazy else None, kind.window)
        for layer, kind in enumerate(kinds)
    ]
    with _eager(model), _layer_masks(model, masks):
        logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits


@torch.no_grad()
def masked_attentions(
    model: PreTrainedModel, ids: Tensor, prompt_length: int, lazy: tuple[int, ...], window: Window
) -> list[Tensor]:
    """Attention weights `[B, H, T, T]` of each layer of such a pass."""
    starts = torch.zeros(ids.shape[0], dtype=torch.long)
    masks = [
        hand_made_mask(ids.shape[1], prompt_length, starts, window if layer in lazy else None, kind.window)
        for layer, kind in enumerate(attention_layers(model.config))
    ]
    with _eager(model), _layer_masks(model, masks):
        return list(model(input_ids=ids, use_cache=False, output_attentions=True).attentions)


def hand_made_mask(
    length: int, prompt_length: int, starts: Tensor, window: Window | None, native: int | None
) -> Tensor:
    """`[B, 1, T, T]` additive, straight from the definition."""
    queries, keys = torch.arange(length)[None, :, None], torch.arange(length)[None, None, :]
    first = starts[:, None, None]
    seen = (keys <= queries) & (keys >= first)
    if native is not None:
        seen = seen & (keys > queries - native)
    if window is not None:
        kept = (keys < first + window.sink) | (keys > queries - window.recent)
        seen = seen & (kept | (queries < prompt_length))
    # A row of padding sees itself, so that its softmax is defined; nothing reads it.
    seen = seen | ((keys == queries) & (queries < first))
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


@torch.no_grad()
def eager_attentions(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    """Attention weights `[B, H, T, T]` of each layer from the model's own eager attention."""
    with _eager(model):
        return list(model(input_ids=ids, use_cache=False, output_attentions=True).attentions)


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _layer_masks(model: PreTrainedModel, masks: list[Tensor]) -> Iterator[None]:
    def replace(mask: Tensor) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "attention_mask": mask.to(next(model.parameters()).dtype)}

        return hook

    modules = [module for name, module in model.named_modules() if name.endswith("self_attn")]
    handles = [
        module.register_forward_pre_hook(replace(mask), with_kwargs=True)
        for module, mask in zip(modules, masks, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
