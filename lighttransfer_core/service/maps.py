"""The map of one kept prefill as the routes serve it: tiles as bytes, exact numbers as JSON, rectangles as files."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.maps.codes import encode, encode_signed
from lighttransfer_core.maps.heads import CHARACTERS, HeadOverview, head_overview
from lighttransfer_core.maps.levels import (
    TILE,
    Evicted,
    Pyramid,
    base_level,
    fine_tile,
    finish,
    first_row,
    nothing_to_check,
    pooled,
    top_level,
)
from lighttransfer_core.maps.profiles import CellValue, cell_value, column_profile, lost_mass, row_maxima, row_profile
from lighttransfer_core.maps.view import View
from lighttransfer_core.models.prompts import pieces
from lighttransfer_core.service.answers import HeadFacts, MapFacts
from lighttransfer_core.service.store import ByteStore
from lighttransfer_core.transcript import Attended, Transcript
from lighttransfer_core.types import Window

_PYRAMIDS_NBYTES = 128 * 2**20
_MOST_CELLS = 2**20

Kept = Pyramid | HeadOverview


@dataclass
class MapStore:
    """Coarse levels and head overviews that were computed before, of all prefills, bounded in bytes."""

    kept: ByteStore[tuple[str, ...], Kept] = field(default_factory=lambda: ByteStore(_PYRAMIDS_NBYTES))
    computing: threading.Lock = field(default_factory=threading.Lock)


class PromptMap:
    """The map of one prefill.

    Parameters
    ----------
    identity
        What the prefill is kept under; equal identities have equal maps.
    check
        Called now and then in a long computation; what it raises ends it.
    """

    def __init__(
        self, prefill: Attended, identity: str, store: MapStore, check: Callable[[], None] = nothing_to_check
    ) -> None:
        self._check = check
        self._prefill = prefill
        self._identity = identity
        self._store = store

    def facts(self) -> MapFacts:
        spec, total = self._prefill.spec, self._prefill.num_tokens
        return MapFacts(
            num_tokens=total,
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            tile=TILE,
            top_level=top_level(total),
            base_level=base_level(total),
            first_rows=tuple(self._first_row(layer) for layer in range(spec.num_layers)),
            prompt_tokens=self._prefill.prompt_tokens,
            streaming=self._streaming(),
        )

    def _first_row(self, layer: int) -> int:
        prompt = self._prefill.prompt_tokens
        return prompt - self._prefill.keep.rows_of(prompt, layer)

    def _streaming(self) -> tuple[int, ...]:
        if not isinstance(self._prefill, Transcript):
            return ()
        return self._prefill.continuation.plan.lazy_layers

    def tokens(self) -> list[str]:
        """The text of each token by itself."""
        ids, tokenizer = self._prefill.input_ids[0].tolist(), self._prefill.lm.tokenizer
        return [str(token) for token in ids] if tokenizer is None else pieces(tokenizer, ids)

    def tile(self, view: View, level: int, row: int, col: int, reduce: str) -> bytes:
        """Codes of a tile, rows first; `TILE` bytes a side, masked beyond the prompt."""
        view.check(self._prefill.spec)
        if level < base_level(self._prefill.num_tokens):
            values = fine_tile(self._prefill, view, level, row, col, reduce)
        else:
            values = self._pyramid(view).tile(level, row, col, reduce)
        codes = encode(values) if view.minus is None else encode_signed(values)
        whole = np.full((TILE, TILE), 255, dtype=np.uint8)
        whole[: codes.shape[0], : codes.shape[1]] = codes
        return whole.tobytes()

    def value(self, view: View, level: int, row: int, col: int, reduce: str, window: Window) -> CellValue:
        view.check(self._prefill.spec)
        return cell_value(self._prefill, view, level, row, col, reduce, window)

    def row(self, view: View, start: int, stop: int) -> bytes:
        """`[T]` float32: the weights of a query, or their average over a range of queries."""
        view.check(self._prefill.spec)
        return row_profile(self._prefill, view, (start, stop)).tobytes()

    def column(self, view: View, key: int) -> bytes:
        """`[T]` float32: what each query gives to a key."""
        view.check(self._prefill.spec)
        return column_profile(self._prefill, view, key).tobytes()

    def lost(self, view: View, window: Window) -> bytes:
        """`[T]` float32: the share of each query's attention that a streaming layer would lose; 0 for rows not kept."""
        view.check(self._prefill.spec)
        first, total = first_row(self._prefill, View(view.source)), self._prefill.num_tokens
        out = np.zeros(total, dtype=np.float32)
        out[first:] = lost_mass(self._prefill, view.source, window, (first, total))
        return out.tobytes()

    def maxima(self, view: View, skip: int) -> bytes:
        """`[2, T]` float32: each query's largest weight, over all keys and over those from `skip` on."""
        view.check(self._prefill.spec)
        return row_maxima(self._prefill, view, skip).tobytes()

    def heads(self, window: Window) -> HeadFacts:
        """The overview of all heads in numbers; its thumbnails are a route of their own."""
        found = self._overview(window)
        return HeadFacts(
            rows=found.rows,
            side=found.thumbnails.shape[-1],
            characters={name: found.characters[name].tolist() for name in CHARACTERS},
        )

    def thumbnails(self, window: Window) -> bytes:
        """`[L, H, side, side]` codes."""
        return self._overview(window).thumbnails.tobytes()

    def rectangle(
        self, view: View, level: int, rows: tuple[int, int], cols: tuple[int, int], reduce: str, form: str
    ) -> bytes:
        """The values of a rectangle of cells, as CSV or NPZ; `rows` and `cols` count cells of the level."""
        view.check(self._prefill.spec)
        most = top_level(self._prefill.num_tokens)
        if level > most:  # a cell larger than the map would be filled up to its full size in memory
            raise InvalidInputError(f"level {level} does not exist: this prompt has levels 0 to {most}.")
        if (rows[1] - rows[0]) * (cols[1] - cols[0]) > _MOST_CELLS:
            raise InvalidInputError(f"the rectangle has more than {_MOST_CELLS:,} cells: choose a coarser level.")
        cell, total = 2**level, self._prefill.num_tokens
        row_tokens, col_tokens = ((a * cell, min(b * cell, total)) for a, b in (rows, cols))
        cells = pooled(self._prefill, view, level, row_tokens, col_tokens)
        values = finish(cells, level, row_tokens, col_tokens, reduce, Evicted.of(self._prefill, view))
        queries, keys = np.arange(*row_tokens, cell), np.arange(*col_tokens, cell)
        texts = self.tokens() if level == 0 else None
        query_tokens, key_tokens = ([texts[at] if texts else "" for at in places] for places in (queries, keys))
        made = _Rectangle(values, queries, keys, query_tokens, key_tokens, str(view), reduce, cell)
        return made.csv() if form == "csv" else made.npz()

    def _pyramid(self, view: View) -> Pyramid:
        key = (self._identity, "pyramid", str(view))
        with self._store.computing:
            self._check()  # it may have waited long for its turn
            found = self._store.kept.get(key)
            if not isinstance(found, Pyramid):
                found = Pyramid(self._prefill, view, self._check)
                self._store.kept.put(key, found, found.nbytes)
        return found

    def _overview(self, window: Window) -> HeadOverview:
        key = (self._identity, "heads", window.to_json())
        with self._store.computing:
            found = self._store.kept.get(key)
            if not isinstance(found, HeadOverview):
                found = head_overview(self._prefill, window)
                self._store.kept.put(key, found, found.thumbnails.nbytes)
        return found


@dataclass(frozen=True)
class _Rectangle:
    """Values of cells with the first query and key of each, and their tokens where a cell is a single pair."""

    values: npt.NDArray[np.float32]
    queries: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    query_tokens: list[str]
    key_tokens: list[str]
    view: str
    reduce: str
    cell_tokens: int

    def csv(self) -> bytes:
        """A matrix; masked cells are empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        cells = f"{self.reduce} over cells of {self.cell_tokens} x {self.cell_tokens}"
        writer.writerow([f"map {self.view}, {cells}", "key", *self.keys.tolist()])
        writer.writerow(["query", "token", *self.key_tokens])
        for query, token, row in zip(self.queries.tolist(), self.query_tokens, self.values, strict=True):
            writer.writerow([query, token, *("" if np.isnan(value) else f"{value:.6g}" for value in row)])
        return out.getvalue().encode()

    def npz(self) -> bytes:
        """One array per field."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
        np.savez_compressed(out, **arrays)
        return out.getvalue()
