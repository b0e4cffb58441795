"""Which keys a query sees: a description that builds its tensors once per forward pass, and only if a kernel asks.

transformers' models build one mask per kind of layer and hand it to every layer of that kind. Ours hands over the
description instead, so that a streaming layer can make its own and a plain causal layer needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, prepare_padding_mask, sdpa_mask


class AttentionMask:
    """A mask over `q_length` queries that end where `kv_length` keys end.

    Parameters
    ----------
    q_length, kv_length
        Queries and keys; query `i` stands at position `kv_length - q_length + i`.
    window
        The model's own sliding window, or None: query `p` sees keys after `p - window`.
    visible
        `[B, kv_length]` bool; False for padding. None: all visible.
    allowed
        `[B or 1, 1, q_length or 1, kv_length]` bool; replaces the causal rule altogether.
    """

    def __init__(
        self,
        q_length: int,
        kv_length: int,
        *,
        window: int | None = None,
        visible: Tensor | None = None,
        allowed: Callable[[torch.device], Tensor] | None = None,
    ) -> None:
        self.q_length = q_length
        self.kv_length = kv_length
        self.window = window if window is not None and window < kv_length else None
        self.visible = visible
        self._allowed = allowed
        self._additive: dict[torch.device, Tensor] = {}
        self._blank: dict[torch.device, Tensor] = {}

    @property
    def is_plain(self) -> bool:
        """Causal, perhaps with a window and padding: the only rule that a hybrid cache can continue."""
        return self._allowed is None

    @property
    def is_causal(self) -> bool:
        """Causal and nothing else."""
        return self._allowed is None and self.window is None and self.visible is None

    @property
    def is_square(self) -> bool:
        return self.q_length == self.kv_length

    @property
    def sees_everything(self) -> bool:
        return self.is_causal and self.q_length == 1

    def additive(self, device: torch.device) -> Tensor:
        """`[B or 1, 1, q_length or 1, kv_length]` float32: 0 where a key is seen, minus infinity elsewhere."""
        if device not in self._additive:
            allowed = self._allowed(device) if self._allowed is not None else self._causal(device)
            self._additive[device] = torch.zeros(allowed.shape, device=device).masked_fill_(~allowed, -torch.inf)
        return self._additive[device]

    def blank_rows(self, device: torch.device) -> Tensor | None:
        """`[B or 1, 1, q_length or 1]` bool: queries that see no key; None where there can be none."""
        if self.is_plain and self.visible is None:
            return None
        if device not in self._blank:
            self._blank[device] = self.additive(device).amax(dim=-1) == -torch.inf
        return self._blank[device]

    def _causal(self, device: torch.device) -> Tensor:
        keys = torch.arange(self.kv_length, device=device)
        queries = keys[self.kv_length - self.q_length :, None]
        allowed = keys <= queries
        if self.window is not None:
            allowed &= keys > queries - self.window
        allowed = allowed[None, None]
        return allowed if self.visible is None else allowed & self.visible.to(device)[:, None, None, :]


def describe_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    **kwargs: Any,
) -> AttentionMask:
    """The mask function that transformers calls for our attention: same arguments as its own, no tensor made."""
    visible = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if visible is not None:
        visible = visible[:, kv_offset : kv_offset + kv_length]
        visible = None if bool(visible.all()) else visible
    ends_together = q_offset + q_length == kv_offset + kv_length
    if allow_is_causal_skip and not use_vmap and not allow_is_bidirectional_skip and ends_together:
        return AttentionMask(q_length, kv_length, window=local_size, visible=visible)

    def allowed(device: torch.device) -> Tensor:
        mask = sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        assert mask is not None
        return mask

    return AttentionMask(q_length, kv_length, allowed=allowed)
