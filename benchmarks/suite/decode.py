"""Decode steps of all sides at every context, batch and precision, beside the time that the bytes alone take; and what
such a step spends its time on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.suite.settings import BARS_FROM_TOKENS, Settings
from benchmarks.suite.stage import Stage
from benchmarks.suite.steps import Cell, Entrant, decode_cell
from benchmarks.workers.protocol import DYNAMIC, FULL, HALF, KVPRESS, LAZY, QUANTIZED, STATIC
from benchmarks.workers.worker import ROOM
from lighttransfer_core.cost.bench_rows import Bar, Row, Spread
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window

SIDES = (DYNAMIC, STATIC, *QUANTIZED, KVPRESS, FULL, HALF, LAZY)
PEERS = (DYNAMIC, STATIC, *QUANTIZED, KVPRESS)


def decode_rows(stage: Stage, settings: Settings, bandwidth: float) -> list[Row]:
    """Every side at every size."""
    missing = stage.missing(SIDES)
    rows = []
    for dtype in settings.dtypes:
        for tokens in settings.contexts:
            for batch in settings.batches:
                cell = cell_rows(stage, settings, bandwidth, SIDES, (dtype, tokens, batch), missing)
                rows += [replace(row, bars=_bars(row, cell)) for row in cell]
    return rows


def cell_rows(
    stage: Stage,
    settings: Settings,
    bandwidth: float,
    sides: Sequence[str],
    size: tuple[str, int, int],
    missing: dict[str, str],
) -> list[Row]:
    """The sides at one precision, number of tokens and batch."""
    dtype, tokens, batch = size
    spec = stage.spec(dtype)
    plans = {side: plan_of(side, spec, settings.window) for side in sides}
    entrants = [Entrant(side, batch, kv_bytes(spec, plan, tokens + ROOM, batch)) for side, plan in plans.items()]
    # what a quantised cache restores in every step takes so long that its turns would be most of the time
    cell = decode_cell(stage, entrants, tokens, dtype, settings, missing=missing, once=tuple(QUANTIZED))
    return [step_row(cell, side, spec, size[1:], bandwidth, _lazy_layers(stage, cell, side, tokens)) for side in sides]


def _lazy_layers(stage: Stage, cell: Cell, side: str, tokens: int) -> int | None:
    """As the side's own worker counts them."""
    if side in cell.missing:
        return None
    found: int | None = stage.of(side).ask("lazy_layers", side=side, tokens=tokens)
    return found


def plan_of(side: str, spec: ModelSpec, window: Window) -> ConversionPlan | None:
    """What a side keeps, as a plan of ours."""
    if side not in (HALF, KVPRESS, LAZY):
        return None
    return ConversionPlan(spec.convertible_layers[1::2] if side != LAZY else spec.convertible_layers, window)


def profile_rows(stage: Stage, settings: Settings) -> list[Row]:
    """The parts of a step of ours, where the bars are."""
    rows = []
    for dtype in settings.dtypes:
        for tokens, batch in settings.profiles:
            for side in (FULL, HALF):
                worker = stage.of(side)
                worker.ask("open", side=side, tokens=tokens, batch=batch, dtype=dtype)
                worker.ask("steps", side=side, count=settings.warmup)
                seconds = worker.ask("steps", side=side, count=settings.steps)["seconds"]
                shares = worker.ask("profile", side=side, count=settings.steps)
                worker.ask("close", side=side)
                note = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
                rows.append(Row(side, dtype, tokens, batch, Spread.of(seconds), note=note))
    return rows


def step_row(
    cell: Cell, side: str, spec: ModelSpec, size: tuple[int, int], bandwidth: float, lazy_layers: int | None
) -> Row:
    """What a cell says of a side; `size` is the tokens of a sequence, and the sequences."""
    tokens, batch = size
    if side in cell.missing:
        return Row(side, spec.dtype, tokens, batch, peer=side in PEERS, note=cell.missing[side])
    kept = cell.kv_bytes[side]
    read = spec.weight_bytes + kept
    ratio, ratio_of = _compared(cell, side)
    return Row(
        side,
        spec.dtype,
        tokens,
        batch,
        seconds=cell.rounds.time(side),
        ratio=ratio,
        ratio_of=ratio_of,
        peer=side in PEERS,
        lazy_layers=lazy_layers,
        kept_bytes=kept,
        kept_tokens=None if side in QUANTIZED else kept / (spec.num_layers * spec.kv_bytes_per_token_per_layer * batch),
        read_bytes=read,
        limit_s=read / bandwidth,
        note="" if cell.together else "sides one after the other: their caches do not fit the memory together",
    )


def _compared(cell: Cell, side: str) -> tuple[Spread | None, str]:
    """With which side a side is compared."""
    over, under, words = {
        FULL: (DYNAMIC, FULL, "times DynamicCache’s speed"),
        HALF: (FULL, HALF, "times the speed of all layers full"),
        LAZY: (FULL, LAZY, "times the speed of all layers full"),
        KVPRESS: (KVPRESS, HALF, "times as long as ours, half lazy"),
    }.get(side, (side, FULL, "times as long as ours, all full"))
    if {over, under} & set(cell.missing):
        return None, ""
    return cell.rounds.ratio(over, under), words


def _bars(row: Row, cell: Sequence[Row]) -> tuple[Bar, ...]:
    if row.tokens < BARS_FROM_TOKENS or row.batch not in (1, 8) or row.ratio is None:
        return ()
    if row.side == FULL:
        return (Bar("ratio", at_least=2.5 if row.dtype == "bfloat16" else 1.6 if row.batch == 1 else 3.0),)
    if row.side == HALF and row.batch == 8:
        read = {one.side: one.read_bytes or 0 for one in cell}
        return (Bar("ratio", at_least=0.9 * read[FULL] / read[HALF]),)
    return ()
