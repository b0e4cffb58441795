"""What one layer's attention on one prompt leaves behind, and every exact number that follows from it.

The weight of a token pair is `exp(scale * q . k - lse)`, so any rectangle of the map is one small product and the map
itself is never held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lighttransfer_core.attention.kernels import attend, capped
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.errors import InvalidInputError, PrefillMismatchError
from lighttransfer_core.types import Window, is_integer

Float32Array = npt.NDArray[np.float32]
Range = tuple[int, int]

_STRIP_ROWS = 256


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one prompt of T tokens.

    Attributes
    ----------
    query
        `[H, R, D]`, after the rotary embedding; the last R rows of the prompt.
    key, value
        `[Hk, T, D]`, after the rotary embedding.
    lse
        `[H, R]`; log-sum-exp of the scaled, masked scores, a learned sink included.
    window
        The model's own sliding window, or None.
    streaming
        What rows from `prompt_tokens` on, which were decoded, could still see; None: everything.
    residual_norm
        `[R]` float32; the length of the residual stream's vectors as they entered the layer, or None.
    residual_cosine
        `[T]` float32; the cosine between the residual stream's vectors before and after the layer's attention is
        added, or None.
    output
        `[H, n, Dv]`; the attention output of the last n rows, or None.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    lse: Tensor
    scale: float
    softcap: float | None = None
    learned_sink: Tensor | None = None
    window: int | None = None
    prompt_tokens: int | None = None
    streaming: Window | None = None
    residual_norm: Tensor | None = None
    residual_cosine: Tensor | None = None
    output: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        return self.key.shape[1]

    @property
    def num_heads(self) -> int:
        return self.query.shape[0]

    @property
    def first_row(self) -> int:
        """The first prompt row whose query was kept."""
        return self.num_tokens - self.query.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes on the device of the keys; queries may be kept elsewhere."""
        parts = (self.query, self.key, self.value, self.lse, self.residual_norm, self.residual_cosine, self.output)
        kept = [t for t in parts if t is not None and t.device == self.key.device]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)

    def log_weights(self, rows: Range, cols: Range, heads: slice = slice(None)) -> Tensor:
        """Log of the attention weights `[heads, rows, cols]` in float32; minus infinity where a key is not seen."""
        self._check(rows, cols)
        kept = slice(rows[0] - self.first_row, rows[1] - self.first_row)
        queries = torch.arange(*rows, device=self.key.device)
        return self._logs(self.query[heads, kept], self.lse[heads, kept], queries, cols, heads)

    def log_weights_at(self, rows: Tensor, heads: slice = slice(None)) -> Tensor:
        """The same of single rows `[R]`, over all keys: `[heads, R, T]`."""
        kept = rows.to(self.query.device) - self.first_row
        chosen = self.query[heads, kept], self.lse[heads, kept]
        return self._logs(*chosen, rows.to(self.key.device), (0, self.num_tokens), heads)

    def attend(self, rows: Range, cols: Range) -> tuple[Tensor, Tensor]:
        """The rows' attention over a range of keys as though there were no others: outputs `[H, rows, D]`, and the
        log-sum-exp of the scores `[H, rows]`, minus infinity where a row sees none of them. Both float32."""
        self._check(rows, cols)
        kept, keys = slice(rows[0] - self.first_row, rows[1] - self.first_row), slice(*cols)
        query = self.query[None, :, kept].to(self.key.device).float()
        key, value = (part[None, :, keys].float() for part in (self.key, self.value))
        out, lse = attend(query, key, value, scale=self.scale, mask=self._mask(rows, cols), softcap=self.softcap)
        return out[0], lse[0]

    def outputs(self, rows: Range, ranges: Sequence[Range]) -> tuple[Tensor, Tensor]:
        """What ranges of tokens add to the rows' attention outputs, `[H, rows, Dv]`, and their mass `[H, rows]`. Both
        float32."""
        found = self.value.new_zeros(self.num_heads, rows[1] - rows[0], self.value.shape[-1], dtype=torch.float32)
        masses = found[..., 0].clone()
        for columns in ranges:
            if columns[0] < columns[1]:
                out, lse = self.attend(rows, columns)
                mass = torch.exp(lse - self.lse_of(rows))
                found, masses = found + out * mass.unsqueeze(-1), masses + mass
        return found, masses

    def _mask(self, rows: Range, cols: Range) -> AttentionMask | None:
        q_length, kv_length = rows[1] - rows[0], cols[1] - cols[0]
        if self.window is None and self.streaming is None:
            if cols[1] <= rows[0] + 1:
                return None
            if cols[1] == rows[1] and cols[0] <= rows[0]:
                return AttentionMask(q_length, kv_length)

        def allowed(device: torch.device) -> Tensor:
            queries = torch.arange(*rows, device=device)[:, None]
            return ~self._hidden(queries, torch.arange(*cols, device=device))[None, None]

        return AttentionMask(q_length, kv_length, allowed=allowed)

    def _logs(self, query: Tensor, lse: Tensor, rows: Tensor, cols: Range, heads: slice) -> Tensor:
        key = self._keys_of(heads, cols)
        query, lse = query.to(key.device), lse.to(key.device)
        # The heads of a group as rows: one product with the keys, which are not copied for each head.
        folded = query.float().reshape(key.shape[0], -1, query.shape[-1])
        scores = (folded @ key.transpose(-1, -2)).view(*query.shape[:2], -1)
        logs = capped(self.scale * scores, self.softcap) - lse.float().unsqueeze(-1)
        hidden = self._hidden(rows[:, None], torch.arange(*cols, device=logs.device))
        return logs.masked_fill_(hidden, -torch.inf)

    def _hidden(self, queries: Tensor, keys: Tensor) -> Tensor:
        """`[rows, cols]` bool: the keys that queries `[rows, 1]` do not see."""
        hidden = keys > queries
        if self.window is not None:
            hidden = hidden | (keys <= queries - self.window)
        if self.streaming is not None:
            hidden = hidden | self._evicted(queries, keys)
        return hidden

    def _evicted(self, queries: Tensor, keys: Tensor) -> Tensor:
        assert self.streaming is not None
        decoded = queries >= (self.prompt_tokens or 0)
        return decoded & (keys >= self.streaming.sink) & (keys <= queries - self.streaming.recent)

    def mass(self, rows: Range, cols: Range) -> Tensor:
        """Attention mass `[H, rows]` that each query puts on a range of keys; 0 for an empty range."""
        if cols[0] >= cols[1]:
            return self.key.new_zeros(self.num_heads, rows[1] - rows[0], dtype=torch.float32)
        return self.log_weights(rows, cols).exp_().sum(dim=-1)

    def learned_sink_mass(self, rows: Range) -> Tensor | None:
        """Attention mass `[H, rows]` that a learned sink takes, or None where the model has none."""
        if self.learned_sink is None:
            return None
        return torch.exp(self.learned_sink.float()[:, None] - self.lse_of(rows))

    def lse_of(self, rows: Range) -> Tensor:
        """Log-sum-exp of rows, `[H, rows]` float32."""
        kept = slice(rows[0] - self.first_row, rows[1] - self.first_row)
        return self.lse[:, kept].to(self.key.device).float()

    def weights(self, head: int, rows: Range, cols: Range) -> Float32Array:
        """Exact attention weights `[rows, cols]` of one head; 0 where a key is not seen."""
        self._check_head(head)
        tile = self.log_weights(rows, cols, slice(head, head + 1))[0].exp_()
        array: Float32Array = tile.cpu().numpy()
        return array

    def pooled(self, head: int, bins: int, reduce: str) -> Float32Array:
        """The whole map in `bins` by `bins` cells, each the maximum or the mean over its causal token pairs.

        Bin `i` covers tokens `floor(i T / bins)` to `floor((i + 1) T / bins) - 1`; a cell without causal pairs is nan.
        """
        if reduce not in ("max", "mean"):
            raise InvalidInputError(f'reduce={reduce!r} is not a way to pool: give "max" or "mean".')
        if not is_integer(bins) or bins < 1:
            raise InvalidInputError(f"bins={bins!r} is not a number of bins: give an integer of at least 1.")
        self._check_head(head)
        edges = np.arange(bins + 1, dtype=np.int64) * self.num_tokens // bins
        filled = np.flatnonzero(edges[1:] > edges[:-1])
        out = np.zeros((bins, bins), dtype=np.float32)
        for start in range(0, self.num_tokens, _STRIP_ROWS):
            self._pool_strip(out, head, start, filled, edges, np.maximum if reduce == "max" else np.add)
        pairs = causal_pairs(edges[:-1], edges[1:], edges[:-1], edges[1:])
        if reduce == "mean":
            out /= np.maximum(pairs, 1)
        out[pairs == 0] = np.nan
        return out

    def _pool_strip(
        self,
        out: Float32Array,
        head: int,
        start: int,
        filled: npt.NDArray[np.int64],
        edges: npt.NDArray[np.int64],
        pool: np.ufunc,
    ) -> None:
        """Adds the strip of rows from `start` to the cells; a bin may take several strips."""
        stop = min(start + _STRIP_ROWS, self.num_tokens)
        columns = filled[edges[filled] < stop]
        by_column = pool.reduceat(self.weights(head, (start, stop), (0, stop)), edges[columns], axis=1)
        bin_of_row = np.searchsorted(edges, np.arange(start, stop), side="right") - 1
        rows, offsets = np.unique(bin_of_row, return_index=True)
        cells = np.ix_(rows, columns)
        out[cells] = pool(out[cells], pool.reduceat(by_column, offsets, axis=0))

    def _keys_of(self, heads: slice, cols: Range) -> Tensor:
        group = self.num_heads // self.key.shape[0]
        start, stop, _ = heads.indices(self.num_heads)
        if stop - start == self.num_heads:
            return self.key[:, cols[0] : cols[1]].float()
        return self.key[start // group : start // group + 1, cols[0] : cols[1]].float()

    def _check_head(self, head: int) -> None:
        if not 0 <= head < self.num_heads:
            raise InvalidInputError(f"head {head} is out of range: the layer has heads 0 to {self.num_heads - 1}.")

    def _check(self, rows: Range, cols: Range) -> None:
        for name, (start, stop) in (("rows", rows), ("cols", cols)):
            if not 0 <= start < stop <= self.num_tokens:
                raise InvalidInputError(
                    f"{name}=({start}, {stop}) is not a range of tokens: give 0 <= start < stop <= {self.num_tokens}."
                )
        if rows[0] < self.first_row:
            raise PrefillMismatchError(
                f"this prefill kept the queries of rows {self.first_row} to {self.num_tokens - 1} only; run it with "
                "keep=Keep(query_rows=None) to look at earlier rows."
            )


def causal_pairs(
    row_starts: npt.NDArray[np.int64],
    row_stops: npt.NDArray[np.int64],
    column_starts: npt.NDArray[np.int64],
    column_stops: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Token pairs with key <= query in each cell of row bins by column bins."""

    def pairs_before(queries: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Pairs (q, k) with q < queries, k < keys and k <= q."""
        few = np.minimum(queries, keys)
        pairs: npt.NDArray[np.int64] = few * (few + 1) // 2 + np.maximum(queries - keys, 0) * keys
        return pairs

    def in_rows(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return pairs_before(row_stops[:, None], keys) - pairs_before(row_starts[:, None], keys)

    return in_rows(column_stops) - in_rows(column_starts)
