"""How costs grow: straight lines through the rows of a part."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.suite.interaction import SCORE, SECOND, TILE
from benchmarks.workers.protocol import FULL, HALF, LAZY
from lighttransfer_core.cost.bench_rows import Growth, Row

TOKENS_KEPT, TOKENS, SEQUENCES = "token that a layer keeps of a sequence", "token of the prompt", "sequence"


def decode_growths(rows: Sequence[Row]) -> list[Growth]:
    """Steps of ours over the tokens kept, for each precision and batch; and over the batch, at each context."""
    ours = [row for row in rows if row.side in (FULL, HALF, LAZY) and row.seconds is not None]
    found = []
    for dtype, batch in dict.fromkeys((row.dtype, row.batch) for row in ours):
        points = [row for row in ours if (row.dtype, row.batch) == (dtype, batch)]
        places = [row.kept_tokens or 0.0 for row in points]
        found += _fitted(f"decode step, {dtype}, batch {batch}, all our sides", TOKENS_KEPT, places, points)
    full = [row for row in ours if row.side == FULL]
    for dtype, tokens in dict.fromkeys((row.dtype, row.tokens) for row in full):
        points = [row for row in full if (row.dtype, row.tokens) == (dtype, tokens)]
        places = [float(row.batch) for row in points]
        found += _fitted(f"decode step, {dtype}, {tokens:,} tokens, all layers full", SEQUENCES, places, points)
    return found


def interaction_growths(rows: Sequence[Row]) -> list[Growth]:
    """What a page waits for, over the context."""
    found = []
    for side in (SCORE, TILE, SECOND):
        points = [row for row in rows if row.side == side]
        found += _fitted(side, TOKENS, [float(row.tokens) for row in points], points)
    return found


def _fitted(what: str, over: str, places: Sequence[float], rows: Sequence[Row]) -> list[Growth]:
    """The line, or none where all points stand at one place."""
    if len(set(places)) < 2:
        return []
    return [Growth.fitted(what, over, places, [row.seconds.median for row in rows if row.seconds is not None])]
