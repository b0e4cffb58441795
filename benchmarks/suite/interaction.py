"""What a page waits for once a prompt was run: scores, exact tiles, the second token of a new choice of layers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.suite.settings import BARS_FROM_TOKENS, Settings
from benchmarks.suite.stage import Stage
from benchmarks.workers.protocol import OURS
from lighttransfer_core.cost.bench_rows import Bar, Row, Spread

SCORE = "scoring all layers of a finished prefill"
TILE = "an exact tile of 256 x 256 token pairs"
SECOND = "a new choice of layers, to its second token"


def interaction_rows(stage: Stage, settings: Settings) -> list[Row]:
    """Each of them after a prompt of each length."""
    rows = []
    for tokens in settings.page_contexts:
        found = stage.of(OURS).ask("waits", tokens=tokens, repeats=settings.repeats)
        share = Spread.of([1 + seconds / found["prefill"] for seconds in found["score"]])
        row = partial(Row, dtype="float32", tokens=tokens)
        score = row(SCORE, seconds=Spread.of(found["score"]), ratio=share, ratio_of="times the prefill’s own time")
        tile, second = (
            row(TILE, seconds=Spread.of(found["tile"])),
            row(SECOND, seconds=Spread.of(found["second"])),
        )
        if tokens >= BARS_FROM_TOKENS:
            score = replace(score, bars=(Bar("ratio", at_most=1.03),))
            tile = replace(tile, bars=(Bar("seconds", at_most=0.05),))
            second = replace(second, bars=(Bar("seconds", at_most=0.15),))
        rows += [score, tile, second]
    return rows
