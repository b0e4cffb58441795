"""The levels of a map: cells of 2^level by 2^level token pairs, each the extreme or the mean of its causal pairs.

Level 0 is exact. The coarse levels of a view come from one pass over the map in strips of rows (`Pyramid`); a finer
tile is computed from its own rectangle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lighttransfer_core.attention import LayerRecord, causal_pairs
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.maps.view import Source, View
from lighttransfer_core.transcript import Attended
from lighttransfer_core.types import Window

Float32Array = npt.NDArray[np.float32]
Range = tuple[int, int]

TILE = 256
_BASE_CELLS = 1024
_STRIP_ROWS = 256


def top_level(num_tokens: int) -> int:
    """The level at which the whole map is one tile."""
    return _level(num_tokens, TILE)


def base_level(num_tokens: int) -> int:
    """The finest level that is computed for the whole map at once."""
    return _level(num_tokens, _BASE_CELLS)


def _level(num_tokens: int, cells: int) -> int:
    return max((num_tokens - 1) // cells, 0).bit_length()


@dataclass(frozen=True)
class Cells:
    """A rectangle of cells: for each the extreme (the maximum, or the value farthest from 0 of a difference) and the
    sum over its pairs. Pairs that the mask hides count as 0."""

    extreme: Tensor
    total: Tensor


def weights(prefill: Attended, view: View, rows: Range, cols: Range) -> Tensor:
    """Attention weights `[rows, cols]` of a view in float32; 0 where a key is not seen."""
    shown = _source_weights(prefill, view.source, rows, cols)
    return shown if view.minus is None else shown - _source_weights(prefill, view.minus, rows, cols)


def first_row(prefill: Attended, view: View) -> int:
    """The first row whose queries were kept in every layer of the view."""
    return max(record.first_row for source in view.sources for record in records_of(prefill, source))


def records_of(prefill: Attended, source: Source) -> list[LayerRecord]:
    return list(prefill.records) if source.layer is None else [prefill.records[source.layer]]


def heads_of(source: Source) -> slice:
    return slice(None) if source.head is None else slice(source.head, source.head + 1)


def _kept_weights(prefill: Attended, view: View, rows: Range, cols: Range) -> Tensor:
    """`weights`, nan in rows whose queries were not kept."""
    first = first_row(prefill, view)
    if rows[0] >= first:
        return weights(prefill, view, rows, cols)
    out = torch.full((rows[1] - rows[0], cols[1] - cols[0]), torch.nan)
    if rows[1] > first:
        out[first - rows[0] :] = weights(prefill, view, (first, rows[1]), cols)
    return out


def _source_weights(prefill: Attended, source: Source, rows: Range, cols: Range) -> Tensor:
    heads = heads_of(source)
    parts = (record.log_weights(rows, cols, heads).exp_().mean(dim=0).cpu() for record in records_of(prefill, source))
    total = next(parts)
    count = 1
    for part in parts:
        total += part
        count += 1
    return total if count == 1 else total.div_(count)


def nothing_to_check() -> None:
    """Stands in where nobody may lose interest in a computation."""


def pooled(
    prefill: Attended,
    view: View,
    level: int,
    rows: Range,
    cols: Range,
    check: Callable[[], None] = nothing_to_check,
) -> Cells:
    """Cells of a rectangle of tokens, whose start lies on the level's grid and whose end may cut a cell short.

    `check` is called between strips of rows; what it raises ends the computation.
    """
    cell = 2**level
    _check_rectangle(prefill, cell, rows, cols)
    shape = (-((rows[0] - rows[1]) // cell), -((cols[0] - cols[1]) // cell))
    extreme, total = torch.zeros(shape), torch.zeros(shape)
    for strip in strips(rows, cell):
        check()
        seen = (cols[0], min(cols[1], strip[1]))  # no query of the strip sees a later key
        if seen[0] >= seen[1]:
            continue
        part = _pool(_kept_weights(prefill, view, strip, seen), cell, signed=view.minus is not None)
        at = (strip[0] - rows[0]) // cell
        into = (slice(at, at + part.total.shape[0]), slice(0, part.total.shape[1]))
        extreme[into], total[into] = part.extreme, part.total
    return Cells(extreme, total)


def strips(rows: Range, cell: int = 1) -> Iterator[Range]:
    """Ranges of rows of bounded height, each of whole cells but perhaps the last."""
    height = max(cell, _STRIP_ROWS)
    for start in range(rows[0], rows[1], height):
        yield start, min(start + height, rows[1])


def _pool(values: Tensor, cell: int, signed: bool) -> Cells:
    if cell == 1:
        return Cells(values, values)
    height, width = values.shape
    padded = functional.pad(values, (0, -width % cell, 0, -height % cell))
    tall = padded.unflatten(0, (-1, cell))
    total = tall.sum(dim=1).unflatten(1, (-1, cell)).sum(dim=2)
    extreme = tall.amax(dim=1).unflatten(1, (-1, cell)).amax(dim=2)
    if signed:
        lowest = tall.amin(dim=1).unflatten(1, (-1, cell)).amin(dim=2)
        extreme = torch.where(-lowest > extreme, lowest, extreme)
    return Cells(extreme, total)


def _check_rectangle(prefill: Attended, cell: int, rows: Range, cols: Range) -> None:
    for name, (start, stop) in (("rows", rows), ("cols", cols)):
        if not 0 <= start < stop <= prefill.num_tokens or start % cell:
            raise InvalidInputError(
                f"{name}=({start}, {stop}) is not a range of cells of {cell} tokens: start at a multiple of {cell} and "
                f"stop at {prefill.num_tokens} at most."
            )


@dataclass(frozen=True)
class Evicted:
    """The pairs that decoded rows of a streaming layer could no longer see."""

    prompt_tokens: int
    window: Window

    @classmethod
    def of(cls, prefill: Attended, view: View) -> Evicted | None:
        """Of the one layer that a view shows; None where it shows several, or one that saw everything."""
        if view.minus is not None or view.source.layer is None:
            return None
        streaming = prefill.records[view.source.layer].streaming
        return None if streaming is None else cls(prefill.prompt_tokens, streaming)

    def cells(self, level: int, rows: Range, cols: Range) -> npt.NDArray[np.bool_]:
        """Cells of which every pair was evicted."""
        queries, keys = (_edges(level, tokens) for tokens in (rows, cols))
        first, last = keys[None, :-1], keys[None, 1:] - 1
        row = queries[:-1, None]
        gone: npt.NDArray[np.bool_] = (
            (row >= self.prompt_tokens) & (first >= self.window.sink) & (last <= row - self.window.recent)
        )
        return gone


def finish(
    cells: Cells, level: int, rows: Range, cols: Range, reduce: str, evicted: Evicted | None = None
) -> Float32Array:
    """The shown values of a rectangle of cells: extreme or mean, nan where a cell has no pair that its query saw."""
    pairs = pairs_in(level, rows, cols)
    if reduce == "max":
        values: Float32Array = cells.extreme.numpy().copy()
    elif reduce == "mean":
        values = (cells.total.numpy() / np.maximum(pairs, 1)).astype(np.float32)
    else:
        raise InvalidInputError(f'reduce={reduce!r} is not a way to pool: give "max" or "mean".')
    values[pairs == 0] = np.nan
    if evicted is not None:
        values[evicted.cells(level, rows, cols)] = np.nan
    return values


def pairs_in(level: int, rows: Range, cols: Range) -> npt.NDArray[np.int64]:
    """Token pairs with key <= query in each cell of a rectangle."""
    queries, keys = (_edges(level, tokens) for tokens in (rows, cols))
    return causal_pairs(queries[:-1], queries[1:], keys[:-1], keys[1:])


def _edges(level: int, tokens: Range) -> npt.NDArray[np.int64]:
    return np.append(np.arange(tokens[0], tokens[1], 2**level, dtype=np.int64), tokens[1])


class Pyramid:
    """The coarse levels of a view of a prefill, from its base level up. It holds numbers only, never the prefill."""

    def __init__(self, prefill: Attended, view: View, check: Callable[[], None] = nothing_to_check) -> None:
        everything = (0, prefill.num_tokens)
        self._num_tokens = prefill.num_tokens
        self._signed = view.minus is not None
        self._evicted = Evicted.of(prefill, view)
        self._base = base_level(prefill.num_tokens)
        self._levels = {self._base: pooled(prefill, view, self._base, everything, everything, check)}
        for level in range(self._base, top_level(prefill.num_tokens)):
            self._levels[level + 1] = self._coarser(self._levels[level])

    @property
    def nbytes(self) -> int:
        return sum(
            t.untyped_storage().nbytes() for cells in self._levels.values() for t in (cells.extreme, cells.total)
        )

    def tile(self, level: int, row: int, col: int, reduce: str) -> Float32Array:
        """The tile `[<= TILE, <= TILE]` whose first cell is `(row * TILE, col * TILE)`, of a level that is held."""
        rows, cols = (tile_tokens(self._num_tokens, level, place) for place in (row, col))
        cells, cell = self._levels[level], 2**level
        at = (slice(rows[0] // cell, -(-rows[1] // cell)), slice(cols[0] // cell, -(-cols[1] // cell)))
        return finish(Cells(cells.extreme[at], cells.total[at]), level, rows, cols, reduce, self._evicted)

    def _coarser(self, cells: Cells) -> Cells:
        return Cells(_pool(cells.extreme, 2, self._signed).extreme, _pool(cells.total, 2, self._signed).total)


def fine_tile(prefill: Attended, view: View, level: int, row: int, col: int, reduce: str) -> Float32Array:
    """The same for a level below the base: computed from its own rectangle of tokens."""
    rows, cols = (tile_tokens(prefill.num_tokens, level, place) for place in (row, col))
    return finish(pooled(prefill, view, level, rows, cols), level, rows, cols, reduce, Evicted.of(prefill, view))


def tile_tokens(num_tokens: int, level: int, place: int) -> Range:
    """The tokens that a tile covers along one side. Raises InvalidInputError where there is no such tile."""
    span = TILE * 2**level
    if not 0 <= level <= top_level(num_tokens) or not 0 <= place * span < num_tokens:
        raise InvalidInputError(
            f"tile {place} of level {level} does not exist: {num_tokens} tokens have levels 0 to "
            f"{top_level(num_tokens)}, and {-(-num_tokens // span)} tiles a side at this one."
        )
    return place * span, min((place + 1) * span, num_tokens)
