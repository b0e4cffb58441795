"""One-dimensional cuts through a map: a row, a column, what each query loses to a window, one cell's exact value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.maps.levels import Range, first_row, heads_of, pairs_in, records_of, strips, weights
from lighttransfer_core.maps.view import Source, View
from lighttransfer_core.transcript import Attended
from lighttransfer_core.types import JsonRecord, Window

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CellValue(JsonRecord):
    """The exact number under the cursor.

    `value` is the cell's extreme or mean, and `query`, `key` the pair where an extreme is reached (for a mean, the
    first pair of the cell). `kept` is the share of the query's attention that a streaming layer would still see, None
    for a difference.
    """

    value: float
    query: int
    key: int
    kept: float | None


def row_profile(prefill: Attended, view: View, rows: Range) -> Float32Array:
    """`[T]`; the weight on each key, averaged over a range of queries, where a hidden key counts as 0."""
    _check_range("rows", rows, prefill.num_tokens)
    total = torch.zeros(prefill.num_tokens)
    for strip in strips(rows):
        total[: strip[1]] += weights(prefill, view, strip, (0, strip[1])).sum(dim=0)
    return np.asarray((total / (rows[1] - rows[0])).numpy(), dtype=np.float32)


def column_profile(prefill: Attended, view: View, key: int) -> Float32Array:
    """`[T]`; the weight that each query puts on one key."""
    _check_range("key", (key, key + 1), prefill.num_tokens)
    out = np.zeros(prefill.num_tokens, dtype=np.float32)
    first = max(key, first_row(prefill, view))
    if first < prefill.num_tokens:
        out[first:] = weights(prefill, view, (first, prefill.num_tokens), (key, key + 1))[:, 0].numpy()
    return out


def lost_mass(prefill: Attended, source: Source, window: Window, rows: Range) -> Float32Array:
    """`[rows]`; the share of each query's attention on keys that a streaming layer with this window no longer sees."""
    _check_range("rows", rows, prefill.num_tokens)
    parts = [_lost(record, heads_of(source), window, rows) for record in records_of(prefill, source)]
    return np.asarray(torch.stack(parts).mean(dim=0).numpy(), dtype=np.float32)


def row_maxima(prefill: Attended, view: View, skip: int) -> Float32Array:
    """`[2, T]`; each query's largest weight, over all keys and over those from `skip` on; nan for rows not kept."""
    out = np.full((2, prefill.num_tokens), np.nan, dtype=np.float32)
    for start, stop in strips((first_row(prefill, view), prefill.num_tokens)):
        part = weights(prefill, view, (start, stop), (0, stop)).abs()
        out[0, start:stop] = part.amax(dim=1).numpy()
        out[1, start:stop] = part[:, skip:].amax(dim=1).numpy() if stop > skip else 0.0
    return out


def cell_value(prefill: Attended, view: View, level: int, row: int, col: int, reduce: str, window: Window) -> CellValue:
    """What the cell of a level holds, exactly."""
    cell, total = 2**level, prefill.num_tokens
    rows, cols = (row * cell, min((row + 1) * cell, total)), (col * cell, min((col + 1) * cell, total))
    _check_range("row", rows, total)
    _check_range("col", cols, total)
    if cols[0] >= rows[1]:
        raise InvalidInputError(f"the cell at row {row}, column {col} lies in the future of its queries.")
    values = weights(prefill, view, rows, cols)
    place = int(values.abs().argmax()) if reduce == "max" else 0
    query, key = rows[0] + place // values.shape[1], cols[0] + place % values.shape[1]
    shown = values.flatten()[place] if reduce == "max" else values.sum() / int(pairs_in(level, rows, cols)[0, 0])
    kept = None
    if view.minus is None:
        kept = 1.0 - float(lost_mass(prefill, view.source, window, (query, query + 1))[0])
    return CellValue(float(shown), query, key, kept)


def _lost(record: LayerRecord, heads: slice, window: Window, rows: Range) -> Tensor:
    """Evicted keys of query q: from `sink` up to `q - recent`."""
    out = torch.zeros(rows[1] - rows[0])
    for start, stop in strips((max(rows[0], window.size), rows[1])):
        last = stop - window.recent
        if last <= window.sink:
            continue
        part = record.log_weights((start, stop), (window.sink, last), heads).exp_().mean(dim=0)
        queries = torch.arange(start, stop, device=part.device)[:, None]
        keys = torch.arange(window.sink, last, device=part.device)
        part.masked_fill_(keys > queries - window.recent, 0.0)
        out[start - rows[0] : stop - rows[0]] = part.sum(dim=1).cpu()
    return out


def _check_range(name: str, tokens: Range, total: int) -> None:
    if not 0 <= tokens[0] < tokens[1] <= total:
        raise InvalidInputError(
            f"{name}: tokens {tokens[0]} to {tokens[1] - 1} do not exist; the prompt has tokens 0 to {total - 1}."
        )
