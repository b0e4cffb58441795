"""The attention function that transformers calls once per layer, and what travels with it.

State belongs to a request, never to a model: a `RequestState` (the hybrid cache) is handed to every layer as a keyword
of the forward call. Without one the function is plain attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from lighttransfer_core.attention.kernels import attend, with_learned_sink
from lighttransfer_core.attention.masks import AttentionMask, describe_mask
from lighttransfer_core.errors import CacheMisuseError, UnsupportedRequestError

IMPLEMENTATION = "lighttransfer"
STATE_KEYWORD = "lt_cache"

_HARMLESS = {"is_causal", "sliding_window", "position_ids", "use_cache", "output_router_logits", "cache_position"}
"""Keywords that models pass along and that say nothing the mask does not say already."""


@dataclass(frozen=True)
class AttentionCall:
    """One layer's attention in one forward pass.

    `query` is `[B, H, Tq, D]`, `key` and `value` are `[B, Hk, Tk, D]`, all after the rotary embedding; `learned_sink`
    is `[H]` or None. `residual_norm` is `[B, Tq]`, the length of the residual stream's vectors as they entered the
    layer, where somebody asked for it.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: AttentionMask
    scale: float
    softcap: float | None = None
    learned_sink: Tensor | None = None
    residual_norm: Tensor | None = None

    def finish(self, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Adds what stands in the denominator once, after all parts are merged."""
        return part if self.learned_sink is None else with_learned_sink(part, self.learned_sink)


class RequestState(ABC):
    """What a request carries through the layers of a forward pass."""

    @abstractmethod
    def begin_forward(self, model: nn.Module, given: Mapping[str, Any]) -> int:
        """Called before `model`'s forward, with its arguments by name; returns the length of the text that the pass
        belongs to, as far as it is known by then, or 0."""

    @abstractmethod
    def see_residual(self, layer: int, hidden: Tensor) -> None:
        """Called before a layer's forward, with the residual stream `[B, Tq, hidden]` that enters it."""

    @abstractmethod
    def see_output(self, layer: int, output: Tensor) -> None:
        """Called after a layer's attention, with what it adds to that stream, before any norm of it."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> Tensor:
        """The attention output `[B, H, Tq, D]` of one layer."""

    @abstractmethod
    def end_forward(self) -> None:
        """Called after the model's forward, also after an error; twice where a model carries our hooks twice."""


def lighttransfer_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: AttentionMask | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    lt_cache: RequestState | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: returns `[B, Tq, H, D]` and no weights."""
    _refuse_unknown(kwargs)
    if dropout:
        raise UnsupportedRequestError(f"attention dropout {dropout} is for training; call model.eval() first.")
    if query.dtype != value.dtype:  # autocast; the rotary embedding has widened the others
        query, key = query.to(value.dtype), key.to(value.dtype)
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    call = AttentionCall(
        layer=int(getattr(module, "layer_idx", -1)),
        query=query,
        key=key,
        value=value,
        mask=_as_mask(module, attention_mask, query, key),
        scale=float(scaling) if scaling is not None else float(query.shape[-1]) ** -0.5,
        softcap=softcap,
        learned_sink=s_aux,
    )
    out = plain_attention(call)[0] if lt_cache is None else lt_cache.attend(call)
    return out.transpose(1, 2).contiguous(), None


def plain_attention(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Attention over exactly the keys given, with its log-sum-exp."""
    if call.key.shape[2] != call.mask.kv_length:
        raise CacheMisuseError(
            f"layer {call.layer} got {call.key.shape[2]} keys where its mask expects {call.mask.kv_length}: a hybrid "
            "cache was passed to a part of the model. Call the whole model, inside hybrid(...)."
        )
    part = attend(call.query, call.key, call.value, scale=call.scale, mask=call.mask, softcap=call.softcap)
    return call.finish(part)


def _refuse_unknown(kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if name == "output_attentions" and value:
            raise UnsupportedRequestError(
                "output_attentions=True asks for all weights at once; use run_prefill(...).attention(layer, head) for "
                "the exact weights of any rectangle."
            )
        if value is not None and value is not False and name not in _HARMLESS:
            raise UnsupportedRequestError(
                f"the model's attention passes {name!r}, which changes the result in a way that we do not reproduce."
            )


def _as_mask(module: nn.Module, mask: AttentionMask | Tensor | None, query: Tensor, key: Tensor) -> AttentionMask:
    if isinstance(mask, AttentionMask):
        return mask
    rows, columns = query.shape[2], key.shape[2]
    if mask is None:
        if getattr(module, "is_causal", True):
            raise UnsupportedRequestError("the model built no attention mask, so what a query may see is unknown.")
        return AttentionMask(rows, columns, allowed=lambda device: mask_of_ones(rows, columns, query))
    visible = mask == 0 if mask.is_floating_point() else mask
    if mask.is_floating_point() and bool((~visible & (mask > torch.finfo(mask.dtype).min / 2)).any()):
        raise UnsupportedRequestError(
            "the mask adds a bias to scores, which we do not reproduce: pass a mask that only hides keys, or none."
        )
    return AttentionMask(rows, columns, allowed=lambda device: visible.bool().to(device)[..., :columns])


def mask_of_ones(rows: int, columns: int, like: Tensor) -> Tensor:
    return like.new_ones(1, 1, rows, columns).bool()


AttentionInterface.register(IMPLEMENTATION, lighttransfer_attention)
AttentionMaskInterface.register(IMPLEMENTATION, describe_mask)
