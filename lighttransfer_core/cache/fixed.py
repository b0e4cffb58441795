"""Layers whose tensors never move or grow, so that a decode step over them can be captured as a graph and replayed.

What changes from step to step is read from one tensor on the device: the position of the token that is fed. They take
one new token at a time.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.attention.kernels import attend, merge
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.cache.layer import HybridLayer, Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.cache.streaming import StreamingLayer
from lighttransfer_core.errors import UnsupportedRequestError
from lighttransfer_core.types import Window


class Position:
    """Where the next token stands: `seen` for the host, `tensor` `[1]` for the device."""

    def __init__(self, seen: int, device: torch.device) -> None:
        self.seen = seen
        self.tensor = torch.tensor([seen], device=device)

    def advance(self) -> None:
        """One token was fed."""
        self.seen += 1
        self.tensor.fill_(self.seen)


class FixedLayer(HybridLayer):
    """What both kinds share: one token a step, nothing to fork or reorder."""

    def __init__(self, position: Position, buffer: Segment) -> None:
        super().__init__()
        self._position = position
        self._buffer = buffer
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self._position.seen

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        slot = self._slot()
        for buffer, new in zip(self._buffer.buffers, (key_states, value_states), strict=True):
            buffer.index_copy_(2, slot, new.detach())
        return key_states, value_states

    @abstractmethod
    def _slot(self) -> Tensor:
        """`[1]`; where in the buffer the token at the current position belongs."""

    def _filled(self, first: int) -> AttentionMask:
        """Which slots hold a token, where the first of them holds the one at position `first`."""
        slots = self._buffer.capacity

        def allowed(device: torch.device) -> Tensor:
            filled: Tensor = torch.arange(slots, device=device) <= self._position.tensor - first
            return filled[None, None, None]

        return AttentionMask(1, slots, allowed=allowed)

    def fork(self) -> FixedLayer:
        raise UnsupportedRequestError("a captured step belongs to one branch: use an ordinary branch to fork it.")

    def _over(self, segment: Segment, call: AttentionCall, mask: AttentionMask | None) -> tuple[Tensor, Tensor]:
        key, value = segment.buffers
        return attend(call.query, key, value, scale=call.scale, mask=mask, softcap=call.softcap)


class FixedFullLayer(FixedLayer):
    """The prompt, shared and only read, and room for a number of further tokens."""

    def __init__(self, position: Position, prompt: Segment, new_tokens: int) -> None:
        super().__init__(position, Segment.zeros_like(prompt.key, prompt.value, new_tokens))
        self._prompt = Segment(prompt.key, prompt.value, prompt.length)

    @property
    def segments(self) -> list[Segment]:
        return [self._prompt, self._buffer]

    @property
    def kept_nbytes(self) -> int:
        return self._position.seen * self._prompt.token_nbytes

    @property
    def own_nbytes(self) -> int:
        return self.kept_nbytes - self._prompt.kept_nbytes

    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        tail = self._over(self._buffer, call, self._filled(self._prompt.length))
        return merge(self._over(self._prompt, call, None), tail)

    def _slot(self) -> Tensor:
        return self._position.tensor - self._prompt.length


class FixedStreamingLayer(FixedLayer):
    """Sinks and a ring of full size, laid out as in `StreamingLayer`."""

    def __init__(self, position: Position, window: Window, prompt: Segment) -> None:
        cut = StreamingLayer(window, prompt, None).segments[0]
        buffer = Segment.zeros_like(prompt.key, prompt.value, window.size)
        buffer.append(cut.key, cut.value)
        super().__init__(position, buffer)
        self._window = window
        self._is_full = cut.length == window.size

    @property
    def segments(self) -> list[Segment]:
        return [self._buffer]

    @property
    def kept_nbytes(self) -> int:
        return min(self._position.seen, self._window.size) * self._buffer.token_nbytes

    @property
    def own_nbytes(self) -> int:
        return self.kept_nbytes

    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        return self._over(self._buffer, call, None if self._is_full else self._filled(0))

    def _slot(self) -> Tensor:
        position, sink = self._position.tensor, self._window.sink
        return torch.where(position < sink, position, sink + (position - sink) % self._window.recent)
