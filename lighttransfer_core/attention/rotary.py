"""Rotary embeddings that choose their frequencies by the length of the text: LongRoPE and dynamic NTK.

They look at the last position of a forward pass. LongRoPE takes one set of frequencies up to the model's turning point,
and another one beyond it; dynamic NTK another one for each length beyond the model's own. A prompt in chunks would be
turned by one set first and by the other after, so every pass is shown the end of the whole text that it belongs to.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

_LONG = "longrope"
_BY_LENGTH = {_LONG, "dynamic"}
_pass = threading.local()


def turning_point(config: PreTrainedConfig) -> int | None:
    """The most tokens of a text that LongRoPE turns by its first set of frequencies; None without LongRoPE."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    sets = [parameters] if "rope_type" in parameters else [one for one in parameters.values() if isinstance(one, dict)]
    points = (one["original_max_position_embeddings"] for one in sets if one.get("rope_type") == _LONG)
    return min(map(int, points), default=None)


def begin_pass(reach: int) -> None:
    """States how many tokens the text of the next pass in this thread has at least; 0: those of the pass."""
    _pass.reach = reach


def show_whole_texts(model: nn.Module) -> list[Any]:
    """Hooks on the model's rotary embeddings of that kind, to be removed by the caller."""
    handles: list[Any] = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if _BY_LENGTH.intersection(kinds.values() if isinstance(kinds, dict) else [kinds]):
            handles.append(module.register_forward_pre_hook(_with_the_end, with_kwargs=True))
            handles.append(module.register_forward_hook(_without_the_end))
    return handles


def _with_the_end(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The text's last position behind those of the pass."""
    kwargs = dict(zip(("x", "position_ids", "layer_type"), args, strict=False)) | kwargs
    positions: Tensor = kwargs["position_ids"]
    end = torch.full_like(positions[..., :1], getattr(_pass, "reach", 0) - 1)
    return (), {**kwargs, "position_ids": torch.cat([positions, end], dim=-1)}


def _without_the_end(_: nn.Module, _args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    cos, sin = output
    return cos[..., :-1, :], sin[..., :-1, :]
