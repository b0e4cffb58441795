"""One cell of decoding: the sides at one size, stepping by turns, all of their caches alive together if they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.suite.settings import Settings
from benchmarks.suite.stage import Stage
from benchmarks.timing import Rounds, take_turns
from benchmarks.workers.worker import ROOM
from lighttransfer_core.cost.device import available_bytes
from lighttransfer_core.speed import GROWTH
from viz.units import bytes_text

_TOGETHER = 0.7
_ALONE = 0.85
"""Shares of the free memory that all caches, or one cache, may take."""


@dataclass(frozen=True)
class Entrant:
    """A side of a cell, its batch, and the bytes of its cache."""

    side: str
    batch: int
    nbytes: int


@dataclass(frozen=True)
class Cell:
    """What a cell gave: the steps of each side, its bytes at the end, and the sides that could not run.

    `together` says whether sides took turns step by step; else each was made, stepped and let go in its turn.
    """

    rounds: Rounds
    kv_bytes: dict[str, int]
    missing: dict[str, str]
    together: bool


@dataclass
class _Turns:
    """The turns of one side."""

    stage: Stage
    entrant: Entrant
    tokens: int
    dtype: str
    settings: Settings
    made_up: bool
    keeps_open: bool
    kv_bytes: int = 0
    is_open: bool = field(default=False, init=False)

    def __call__(self) -> list[float]:
        side, worker = self.entrant.side, self.stage.of(self.entrant.side)
        if not self.is_open:
            sizes = {"tokens": self.tokens, "batch": self.entrant.batch, "dtype": self.dtype}
            worker.ask("open", side=side, **sizes, made_up=self.made_up)
            worker.ask("steps", side=side, count=self.settings.warmup, budget_s=self.settings.turn_budget_s)
            self.is_open = True
        found = worker.ask("steps", side=side, count=self.settings.steps, budget_s=self.settings.turn_budget_s)
        self.kv_bytes = found["kv_bytes"]
        if not self.keeps_open:
            self.close()
        seconds: list[float] = found["seconds"]
        return seconds

    def close(self) -> None:
        self.stage.of(self.entrant.side).ask("close", side=self.entrant.side)
        self.is_open = False


def decode_cell(
    stage: Stage,
    entrants: Sequence[Entrant],
    tokens: int,
    dtype: str,
    settings: Settings,
    made_up: bool = False,
    missing: dict[str, str] | None = None,
) -> Cell:
    """Decodes after `tokens` tokens, prompts or made-up ones, with every side that is not `missing` and that fits."""
    assert settings.warmup + settings.rounds * settings.steps <= ROOM
    missing = dict(missing or {})
    free = available_bytes(stage.spec(dtype).device)
    for entrant in entrants:
        if GROWTH * entrant.nbytes > _ALONE * free:
            missing.setdefault(
                entrant.side, f"its cache takes {bytes_text(entrant.nbytes)}, and {bytes_text(free)} of memory are free"
            )
    running = [entrant for entrant in entrants if entrant.side not in missing]
    together = GROWTH * sum(entrant.nbytes for entrant in running) <= _TOGETHER * free
    turns = {entrant.side: _Turns(stage, entrant, tokens, dtype, settings, made_up, together) for entrant in running}
    try:
        rounds = settings.rounds if together else settings.rounds_alone
        measured = take_turns(turns, rounds, settings.decode_budget_s)
    finally:
        for one in turns.values():
            if one.is_open:
                one.close()
    return Cell(measured, {side: one.kv_bytes for side, one in turns.items()}, missing, together)
