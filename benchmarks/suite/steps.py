"""One cell of decoding: the sides at one size, stepping by turns, all of their caches alive together if they fit."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.suite.room import Room
from benchmarks.suite.settings import Settings
from benchmarks.suite.stage import Stage
from benchmarks.timing import Rounds, take_turns
from benchmarks.workers.worker import ROOM
from lighttransfer_core.speed import GROWTH

_LOG = logging.getLogger("benchmarks")


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
        if not self.is_open:
            self.open()
        found = self._steps(self.settings.steps)
        self.kv_bytes = found["kv_bytes"]
        if not self.keeps_open:
            self.close()
        seconds: list[float] = found["seconds"]
        return seconds

    def open(self) -> None:
        sizes = {"tokens": self.tokens, "batch": self.entrant.batch, "dtype": self.dtype}
        self._ask("open", **sizes, made_up=self.made_up)
        self.is_open = True
        self._steps(self.settings.warmup)

    def close(self) -> None:
        self._ask("close")
        self.is_open = False

    def _steps(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("steps", count=count, budget_s=self.settings.turn_budget_s)
        return found

    def _ask(self, do: str, **given: Any) -> Any:
        return self.stage.of(self.entrant.side).ask(do, side=self.entrant.side, **given)


def decode_cell(
    stage: Stage,
    entrants: Sequence[Entrant],
    tokens: int,
    dtype: str,
    settings: Settings,
    made_up: bool = False,
    missing: dict[str, str] | None = None,
    once: Collection[str] = (),
) -> Cell:
    """Decodes after `tokens` tokens, prompts or made-up ones, with every side that is not `missing` and that fits; with
    those in `once` in the first round only."""
    assert settings.warmup + settings.rounds * settings.steps <= ROOM
    missing = dict(missing or {})
    room = Room(stage.spec(dtype).device)
    for entrant in entrants:
        if why := room.lacks(GROWTH * entrant.nbytes):
            missing.setdefault(entrant.side, why)
    running = [entrant for entrant in entrants if entrant.side not in missing]
    together = room.holds_together([GROWTH * entrant.nbytes for entrant in running])
    _LOG.info(
        "decode, %s, %s tokens, batch %s",
        dtype,
        f"{tokens:,}",
        "/".join(map(str, sorted({entrant.batch for entrant in running}))),
    )
    turns = {entrant.side: _Turns(stage, entrant, tokens, dtype, settings, made_up, together) for entrant in running}
    try:
        if together:
            for one in turns.values():
                one.open()
        rounds = settings.rounds if together else settings.rounds_alone
        measured = take_turns(turns, rounds, settings.decode_budget_s, once)
    finally:
        for one in turns.values():
            if one.is_open:
                one.close()
    return Cell(measured, {side: one.kv_bytes for side, one in turns.items()}, missing, together)
