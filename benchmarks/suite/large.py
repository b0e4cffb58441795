"""What the embedded model has no positions for: a long prompt in chunks, and large batches that fill a KV memory.

Both run on models of its shape with random weights and more positions; how long a step takes does not depend on the
weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.suite.decode import cell_rows, plan_of, step_row
from benchmarks.suite.prefill import prefills, warm_up
from benchmarks.suite.settings import Settings
from benchmarks.suite.stage import Stage
from benchmarks.suite.steps import Entrant, decode_cell
from benchmarks.workers.protocol import DYNAMIC, FULL, HALF, PLANNED, RECORDED
from benchmarks.workers.worker import ROOM
from lighttransfer_core.cost.bench_rows import Row, Spread
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import PAPER_THROUGHPUT
from lighttransfer_core.cost.roofline import largest_batch

_DTYPE = "float32"


def random_model(like: Path, folder: Path, positions: int, layers: int | None = None) -> str:
    """Writes a random model of another's shape, with more positions and perhaps fewer layers; says what it is."""
    config = AutoConfig.from_pretrained(like, local_files_only=True)
    config.max_position_embeddings = positions
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return (
        f"random weights in the shape of the embedded model, {config.num_hidden_layers} layers, {positions:,} positions"
    )


def long_rows(stage: Stage, settings: Settings, bandwidth: float) -> list[Row]:
    """One long prompt, chunk by chunk, and decode steps after it."""
    tokens, chunk = settings.long_tokens, settings.long_chunk
    sides = (DYNAMIC, RECORDED, PLANNED)
    warm_up(stage, sides, 4 * chunk if 4 * chunk < tokens else chunk)
    found = prefills(stage, sides, tokens, 1, {}, chunk=chunk)
    ratio = found.rounds.ratio
    rows = [
        found.row(DYNAMIC, tokens, ratio=ratio(DYNAMIC, PLANNED), ratio_of="times as long as ours with a plan"),
        found.row(RECORDED, tokens, ratio=ratio(RECORDED, DYNAMIC), ratio_of="times DynamicCache’s time"),
        found.row(PLANNED, tokens),
    ]
    rows = [replace(row, note=f"prefill, {chunk:,} tokens at a time") for row in rows]
    steps = cell_rows(stage, settings, bandwidth, (DYNAMIC, FULL, HALF), (_DTYPE, tokens, 1), {})
    return rows + [replace(row, note="decode step") for row in steps]


def throughput_rows(stage: Stage, settings: Settings, bandwidth: float) -> list[Row]:
    """Each side at the largest batch whose keys and values fit one memory, at the paper's context lengths."""
    dtype = settings.throughput_dtype
    unhurried = replace(settings, decode_budget_s=settings.throughput_budget_s)
    spec = stage.spec(dtype)
    rows: list[Row] = []
    for context in settings.throughputs:
        plans = {side: plan_of(side, spec, settings.window) for side in (DYNAMIC, FULL, HALF)}
        fits = {side: largest_batch(spec, plan, context, settings.kv_nbytes) for side, plan in plans.items()}
        entrants = [Entrant(side, n, kv_bytes(spec, plans[side], context, n)) for side, n in fits.items() if n]
        missing = {side: "not one sequence fits" for side, n in fits.items() if not n}
        cell = decode_cell(stage, entrants, context - ROOM, dtype, unhurried, made_up=True, missing=missing)
        lazy = {side: None if plan is None else len(plan.lazy_layers) for side, plan in plans.items()}
        found = {side: step_row(cell, side, spec, (context, fits[side]), bandwidth, lazy[side]) for side in fits}
        found[HALF] = _against_the_paper(found[FULL], found[HALF])
        rows += found.values()
    return rows


def _against_the_paper(full: Row, half: Row) -> Row:
    """The plan's row with the ratio of tokens per second in place of that of steps."""
    if half.ratio is None:
        return half
    more = half.batch / full.batch
    times = half.ratio
    ratio = Spread(more * times.median, more * times.low, more * times.high, times.count)
    paper = f"the paper has {PAPER_THROUGHPUT[half.tokens]:.2f}" if half.tokens in PAPER_THROUGHPUT else ""
    note = "; ".join(filter(None, [paper, half.note]))
    return replace(half, ratio=ratio, ratio_of="times the tokens a second of all layers full", note=note)
