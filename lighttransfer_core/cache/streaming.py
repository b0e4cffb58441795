"""A layer that keeps the first tokens and the most recent ones: attention sinks and a ring.

Keys stay as they were computed, at their original absolute positions. A query at position p sees the keys before
`sink` and those after `p - recent`. Source: LightTransfer (arXiv 2410.13846), section 4; unlike its reference code the
window rolls while decoding.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.attention.kernels import attend
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.cache.layer import HybridLayer, Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.types import Window

_FIRST_SLACK = 64


class StreamingLayer(HybridLayer):
    """Streaming attention over one buffer: slot `s < sink` holds a row's `s`-th real token, and the token at position
    `p >= sink` of the batch lies in slot `sink + (p - sink) % recent`.

    With left padding the sinks are each row's own first real tokens, while the ring is shared by position: ring slots
    that hold a row's padding or its sinks are masked for that row.
    """

    def __init__(self, window: Window, prompt: Segment, padding: Padding | None) -> None:
        super().__init__()
        self.window = window
        self.seen = 0
        self._pending: tuple[Tensor, Tensor] | None = None
        self._buffer = Segment.zeros_like(prompt.key, prompt.value, min(prompt.length, window.size))
        self.is_initialized = True
        self._write(prompt.key, prompt.value, padding)

    @property
    def segments(self) -> list[Segment]:
        return [self._buffer]

    @property
    def own_nbytes(self) -> int:
        return self.kept_nbytes

    def get_seq_length(self) -> int:
        """Tokens seen, not stored: positions follow from it."""
        return self.seen

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Takes the new tokens; `attend` stores them once the earliest queries have seen what they will push out."""
        self._pending = (key_states, value_states)
        return key_states, value_states

    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        assert self._pending is not None
        (key, value), self._pending = self._pending, None
        if key.shape[2] == 1:
            self._write(key, value, padding)
            mask = self._step_mask(padding)
            key, value = self._buffer.key, self._buffer.value
        else:
            mask = self._chunk_mask(key.shape[2], padding)
            new = (key, value)
            key = torch.cat([self._buffer.key, key], dim=2)
            value = torch.cat([self._buffer.value, value], dim=2)
            self._write(*new, padding)
        return attend(call.query, key, value, scale=call.scale, mask=mask, softcap=call.softcap)

    def fork(self) -> StreamingLayer:
        twin = copy.copy(self)
        twin._buffer = self._buffer.copy()
        return twin

    def _write(self, key: Tensor, value: Tensor, padding: Padding | None) -> None:
        """Stores new tokens `[B, Hk, m, D]`, which stand at positions `seen` to `seen + m - 1`."""
        start, stop = self.seen, self.seen + key.shape[2]
        self._grow(stop)
        for buffer, new in zip(self._buffer.buffers, (key.detach(), value.detach()), strict=True):
            self._write_sinks(buffer, new, start, stop, padding)
            self._write_ring(buffer, new, start, stop)
        self._buffer.length = min(stop, self.window.size)
        self.seen = stop

    def _grow(self, stop: int) -> None:
        needed = min(stop, self.window.size)
        if needed > self._buffer.capacity:
            slack = min(_FIRST_SLACK + needed // 2, needed // 5)
            self._buffer.reserve(min(needed + slack, self.window.size))

    def _write_sinks(self, buffer: Tensor, new: Tensor, start: int, stop: int, padding: Padding | None) -> None:
        sink = self.window.sink
        if padding is None:
            if start < sink:
                last = min(stop, sink)
                buffer[:, :, start:last] = new[:, :, : last - start]
            return
        if start >= padding.most + sink:
            return
        for row, first in enumerate(padding.starts):
            begin, end = max(start, first), min(stop, first + sink)
            if begin < end:
                buffer[row, :, begin - first : end - first] = new[row, :, begin - start : end - start]

    def _write_ring(self, buffer: Tensor, new: Tensor, start: int, stop: int) -> None:
        """At most two contiguous copies: up to the ring's end, and on from its beginning."""
        sink, recent = self.window.sink, self.window.recent
        begin = max(start, sink, stop - recent)
        if begin >= stop:
            return
        slot = (begin - sink) % recent
        first = min(stop - begin, recent - slot)
        buffer[:, :, sink + slot : sink + slot + first] = new[:, :, begin - start : begin - start + first]
        rest = stop - begin - first
        if rest:
            buffer[:, :, sink : sink + rest] = new[:, :, stop - start - rest :]

    def _ring_positions(self, device: torch.device) -> Tensor:
        """`[stored - sink]`; the position of the token in each filled ring slot."""
        sink, recent = self.window.sink, self.window.recent
        slots = torch.arange(max(self._buffer.length - sink, 0), device=device)
        newest = self.seen - 1 - sink
        return sink + newest - (newest - slots) % recent

    def _stored_positions(self, device: torch.device, padding: Padding | None) -> tuple[Tensor, Tensor]:
        """Position and validity of each stored slot, `[1 or B, stored]` both.

        A sink slot of a row that has not that many tokens yet is invalid, and so is a ring slot that holds a row's
        padding or one of its sinks.
        """
        stored = self._buffer.length
        sinks = torch.arange(min(self.window.sink, stored), device=device)
        ring = self._ring_positions(device)
        starts = torch.zeros(1, 1, dtype=torch.long, device=device)
        if padding is not None:
            starts = padding.starts_on(device)[:, None]
        sink_positions = starts + sinks
        ring_positions = ring.expand(len(starts), -1)
        valid = torch.cat([sink_positions < self.seen, ring_positions >= starts + self.window.sink], dim=1)
        return torch.cat([sink_positions, ring_positions], dim=1), valid

    def _step_mask(self, padding: Padding | None) -> AttentionMask | None:
        """The mask of one new token that is stored already: everything valid; None once every slot is."""
        if padding is None or self.seen >= padding.most + self.window.size:
            return None
        stored = self._buffer.length

        def allowed(device: torch.device) -> Tensor:
            return self._stored_positions(device, padding)[1][:, None, None, :]

        return AttentionMask(1, stored, allowed=allowed)

    def _chunk_mask(self, new: int, padding: Padding | None) -> AttentionMask:
        """The mask of several new tokens over the stored slots followed by the new tokens themselves."""
        sink, recent = self.window.sink, self.window.recent

        def allowed(device: torch.device) -> Tensor:
            positions, valid = self._stored_positions(device, padding)
            starts = torch.zeros(1, 1, dtype=torch.long, device=device)
            if padding is not None:
                starts = padding.starts_on(device)[:, None]
            queries = torch.arange(self.seen, self.seen + new, device=device)
            keys = torch.cat([positions, queries.expand(len(positions), -1)], dim=1)
            valid = torch.cat([valid, torch.ones(len(positions), new, dtype=torch.bool, device=device)], dim=1)
            keys, valid, starts = keys[:, None, :], valid[:, None, :], starts[:, None, :]
            rows = queries[None, :, None]
            seen = (keys <= rows) & ((keys < starts + sink) | (keys > rows - recent))
            return (seen & valid)[:, None]

        mask = AttentionMask(new, self._buffer.length + new, allowed=allowed)
        # Built before the new tokens are written, since it speaks of the slots as they are now.
        mask.additive(self._buffer.key.device)
        return mask
