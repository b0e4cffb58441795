"""Prefills of all sides by turns, with the memory that each takes; and captures of all attention weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.suite.room import Room
from benchmarks.suite.settings import BARS_FROM_TOKENS, Settings
from benchmarks.suite.stage import Stage
from benchmarks.timing import Rounds, take_turns
from benchmarks.workers.protocol import CHOSEN, DYNAMIC, EAGER, KVPRESS, PLANNED, QUANTIZED, RECORDED, STATIC
from lighttransfer_core.cost.bench_rows import Bar, Row

PEERS = (DYNAMIC, STATIC, *QUANTIZED, KVPRESS, EAGER)
SIDES = (DYNAMIC, STATIC, *QUANTIZED, KVPRESS, RECORDED, PLANNED, CHOSEN)
WITHOUT_BARS = (STATIC, *QUANTIZED, KVPRESS)
_DTYPE = "float32"
_LOG = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Prefills:
    """Prefills of one prompt: their times, what each left and held, and the sides that could not run."""

    rounds: Rounds
    left: dict[str, list[dict[str, Any]]]
    missing: dict[str, str]

    def row(self, side: str, tokens: int, **more: Any) -> Row:
        """A side's row; `more` are fields of it."""
        if side in self.missing:
            return Row(side, _DTYPE, tokens, peer=side in PEERS, note=self.missing[side])
        left = self.left[side]
        held = [one["extra_bytes"] for one in left if one["extra_bytes"] is not None]
        return Row(
            side,
            _DTYPE,
            tokens,
            seconds=self.rounds.time(side),
            peer=side in PEERS,
            lazy_layers=left[-1]["lazy_layers"],
            kept_bytes=left[-1]["kept_bytes"],
            extra_bytes=max(held, default=None),
            **more,
        )


def prefill_rows(stage: Stage, settings: Settings) -> list[Row]:
    """Every side at every context."""
    missing = stage.missing(SIDES)
    warm_up(stage, [side for side in SIDES if side not in missing], settings.contexts[0])
    rows = []
    for tokens in settings.contexts:
        once = WITHOUT_BARS if tokens >= settings.peers_once_from else ()
        budget_s = settings.prefill_budget_s
        found = prefills(stage, SIDES, tokens, settings.prefills, missing, budget_s=budget_s, once=once)
        rows += [_prefill_row(found, side, tokens) for side in SIDES]
    return rows


def capture_rows(stage: Stage, settings: Settings) -> list[Row]:
    """All attention weights of a prompt, against a record that gives any of them."""
    sides = (EAGER, RECORDED)
    warm_up(stage, sides, settings.captures[0])
    rows = []
    spec = stage.spec(_DTYPE)
    for tokens in settings.captures:
        # a layer's weights are there twice while their softmax is taken
        nbytes = 4 * (spec.num_layers + 2) * spec.num_heads * tokens**2
        lacks = Room(spec.device).lacks(nbytes)
        found = prefills(stage, sides, tokens, settings.capture_rounds, {EAGER: lacks} if lacks else {})
        times = {} if lacks else {"ratio": found.rounds.ratio(EAGER, RECORDED), "ratio_of": "times as long as ours"}
        rows += [found.row(EAGER, tokens, **times), found.row(RECORDED, tokens)]
    return rows


def warm_up(stage: Stage, sides: Sequence[str], tokens: int) -> None:
    """A first pass, in which a process starts threads and reads the weights from the disk."""
    for side in sides:
        stage.of(side).ask("prefill", side=side, tokens=tokens)


def prefills(
    stage: Stage,
    sides: Sequence[str],
    tokens: int,
    rounds: int,
    missing: dict[str, str],
    *,
    chunk: int = 0,
    budget_s: float = math.inf,
    once: Collection[str] = (),
) -> Prefills:
    """Runs one prompt on each side that is not `missing`, by turns."""
    _LOG.info("prefill, %s tokens", f"{tokens:,}")
    left: dict[str, list[dict[str, Any]]] = {side: [] for side in sides if side not in missing}

    def turn(side: str) -> list[float]:
        left[side].append(stage.of(side).ask("prefill", side=side, tokens=tokens, chunk=chunk))
        return [left[side][-1]["seconds"]]

    rounds_run = take_turns({side: partial(turn, side) for side in left}, rounds, budget_s, once)
    return Prefills(rounds_run, left, missing)


def _prefill_row(found: Prefills, side: str, tokens: int) -> Row:
    if side in found.missing or side == PLANNED:
        return found.row(side, tokens)
    over, under, words = {
        RECORDED: (RECORDED, DYNAMIC, "times DynamicCache’s time"),
        CHOSEN: (CHOSEN, PLANNED, "times the time with a plan"),
    }.get(side, (side, PLANNED, "times as long as ours with a plan"))
    bars = {
        # the weights of one head, all at once
        RECORDED: (Bar("ratio", at_most=1.10), Bar("extra_bytes", at_most=4 * tokens**2)),
        CHOSEN: (Bar("ratio", at_most=1.03),),
    }.get(side, ())
    held = bars if tokens >= BARS_FROM_TOKENS else ()
    return found.row(side, tokens, ratio=found.rounds.ratio(over, under), ratio_of=words, bars=held)
