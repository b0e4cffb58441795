"""A layer of several branches of one prompt at once: row `b` of the batch is the branch of plan `b`.

The prompt's keys and values are shared and only read, once for all rows; each row sees all of them, or through its own
window. What follows the prompt is every row's own. All rows stand at the same position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.attention.kernels import attend, merge
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.cache.layer import HybridLayer, Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.types import Window

_SLACK = 64


class BranchesLayer(HybridLayer):
    """Attention of `[B]` rows over a prompt `[1, Hk, T, D]` that they share and tails of their own.

    Parameters
    ----------
    prompt
        Keys and values of the prompt that was run before, shared and read-only.
    windows
        One per row: what the row's branch keeps of this layer, or None where it is full.
    """

    def __init__(self, prompt: Segment, windows: Sequence[Window | None]) -> None:
        super().__init__()
        self._prompt = prompt
        self._windows = list(windows)
        self._tail: Segment | None = None
        self._groups = _rows_by_window(self._windows)
        self.is_initialized = True

    @property
    def segments(self) -> list[Segment]:
        return [self._prompt] if self._tail is None else [self._prompt, self._tail]

    @property
    def own_nbytes(self) -> int:
        return 0 if self._tail is None else self._tail.kept_nbytes

    def get_seq_length(self) -> int:
        return self._prompt.length + (0 if self._tail is None else self._tail.length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if self._tail is None:
            self._tail = Segment.zeros_like(key_states, value_states, 0)
        needed = self._tail.length + key_states.shape[2]
        if needed > self._tail.capacity:
            self._tail.reserve(needed + _SLACK)
        self._tail.append(key_states, value_states)
        return key_states, value_states

    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        assert self._tail is not None
        return merge(self._over_prompt(call), self._over_tail(call, self._tail))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps the rows in `beam_idx`; the prompt is all rows' own."""
        if self._tail is not None:
            self._tail.select_rows(beam_idx)
        self._windows = [self._windows[row] for row in beam_idx.tolist()]
        self._groups = _rows_by_window(self._windows)

    def fork(self) -> BranchesLayer:
        twin = BranchesLayer(self._prompt, self._windows)
        twin._tail = None if self._tail is None else self._tail.copy()
        return twin

    def _over_prompt(self, call: AttentionCall) -> tuple[Tensor, Tensor]:
        batch, heads, queries, _ = call.query.shape
        out = call.query.new_zeros(batch, heads, queries, self._prompt.value.shape[3])
        lse = call.query.new_full((batch, heads, queries), -torch.inf, dtype=torch.float32)
        for window, rows in self._groups.items():
            part = self._seen_by(call, rows, window)
            if part is not None:
                out[rows], lse[rows] = part[0], part[1].to(lse.dtype)
        return out, lse

    def _seen_by(self, call: AttentionCall, rows: list[int], window: Window | None) -> tuple[Tensor, Tensor] | None:
        """Attention of some rows over what they see of the prompt: their queries side by side, as rows of one call."""
        length, queries = self._prompt.length, call.query.shape[2]
        query = _side_by_side(call.query[rows], self._prompt.key.shape[1])
        key, value, mask = self._prompt.key, self._prompt.value, None
        if window is not None:
            first = self.get_seq_length() - queries  # position of the first query
            start = min(max(first - window.recent + 1, window.sink), length)
            kept = torch.cat([torch.arange(min(window.sink, length)), torch.arange(start, length)]).to(key.device)
            if not len(kept):
                return None
            key, value = key[:, :, kept], value[:, :, kept]
            if queries > 1:
                mask = _window_mask(kept, window, first, queries, query.shape[2] // queries)
        out, lse = attend(query, key, value, scale=call.scale, mask=mask, softcap=call.softcap)
        return _row_by_row(out, len(rows), queries), _row_by_row(lse, len(rows), queries)

    def _over_tail(self, call: AttentionCall, tail: Segment) -> tuple[Tensor, Tensor]:
        queries, stored = call.query.shape[2], tail.length
        windowed = any(window is not None and window.recent < stored for window in self._windows)
        mask = None if queries == 1 else AttentionMask(queries, stored)
        if windowed:
            mask = AttentionMask(queries, stored, allowed=lambda device: self._tail_seen(queries, stored).to(device))
        return attend(call.query, tail.key, tail.value, scale=call.scale, mask=mask, softcap=call.softcap)

    def _tail_seen(self, queries: int, stored: int) -> Tensor:
        """`[B, 1, queries, stored]` bool: which tokens after the prompt each row's queries see."""
        place = torch.arange(self._prompt.length, self._prompt.length + stored)
        query, key = place[stored - queries :, None], place[None, :]
        seen = []
        for window in self._windows:
            near = key <= query
            seen.append(near if window is None else near & ((key > query - window.recent) | (key < window.sink)))
        return torch.stack(seen)[:, None]


def _rows_by_window(windows: Sequence[Window | None]) -> dict[Window | None, list[int]]:
    groups: dict[Window | None, list[int]] = {}
    for row, window in enumerate(windows):
        groups.setdefault(window, []).append(row)
    return groups


def _side_by_side(query: Tensor, kv_heads: int) -> Tensor:
    """`[b, H, q, D]` to `[1, Hk, g * b * q, D]`: the heads of a group, then the rows, then the queries."""
    rows, heads, queries, dim = query.shape
    grouped = query.reshape(rows, kv_heads, heads // kv_heads, queries, dim).permute(1, 2, 0, 3, 4)
    return grouped.reshape(1, kv_heads, -1, dim)


def _row_by_row(part: Tensor, rows: int, queries: int) -> Tensor:
    """The way back: `[1, Hk, g * b * q, ...]` to `[b, H, q, ...]`."""
    apart = part[0].unflatten(1, (-1, rows, queries))
    back: Tensor = apart.movedim(2, 0).flatten(1, 2)
    return back


def _window_mask(kept: Tensor, window: Window, first: int, queries: int, repeats: int) -> AttentionMask:
    """Of `repeats` times `queries` query rows over the kept prompt tokens."""
    rows = torch.arange(first, first + queries, device=kept.device)[:, None]
    seen = ((kept < window.sink) | (kept > rows - window.recent)).repeat(repeats, 1)[None, None]
    return AttentionMask(queries * repeats, len(kept), allowed=lambda device: seen.to(device))
