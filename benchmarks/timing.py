"""Measuring several sides of one claim in one run: sides that take turns, paired ratios, medians with their spread."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lighttransfer_core.cost.bench_rows import Spread


@dataclass(frozen=True)
class Rounds:
    """Seconds of each side, round by round: of one measurement, or of several steps in a row."""

    seconds: dict[str, list[list[float]]]

    def time(self, side: str) -> Spread:
        """Over everything measured."""
        return Spread.of([taken for turn in self.seconds[side] for taken in turn])

    def ratio(self, over: str, under: str) -> Spread:
        """How many times as long `over` took as `under`, round by round, so that slow moments hit both."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=False)
        return Spread.of([statistics.median(one) / statistics.median(other) for one, other in pairs])


def take_turns(
    sides: Mapping[str, Callable[[], list[float]]],
    rounds: int,
    budget_s: float = math.inf,
    once: Collection[str] = (),
) -> Rounds:
    """Gives every side a turn in each round; those in `once` in the first only.

    Each round begins with another side, and every second one runs the other way, since what a side leaves behind, of
    memory or heat, is the next one's. A turn returns the seconds that it measured. No round begins once `budget_s` is
    spent, but one is always run.
    """
    measured = Rounds({name: [] for name in sides})
    start = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - start > budget_s:
            break
        names = [name for name in sides if not number or name not in once]
        turn = number % len(names) if names else 0
        order = names[turn:] + names[:turn]
        if number % 2:
            order[1:] = order[:0:-1]
        for name in order:
            measured.seconds[name].append(sides[name]())
    return measured


def interleaved(sides: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, warmup: int = 0) -> Rounds:
    """Times work of this process by turns; `warmup` rounds come first and are not counted."""
    turns = {name: _timed(work, device) for name, work in sides.items()}
    if warmup:
        take_turns(turns, warmup)
    return take_turns(turns, rounds)


def _timed(work: Callable[[], Any], device: torch.device) -> Callable[[], list[float]]:
    def turn() -> list[float]:
        gc.collect()
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        return [time.perf_counter() - began]

    return turn


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def memory_bandwidth(device: torch.device, nbytes: int = 2**29, rounds: int = 7) -> float:
    """Bytes a second that this machine moves at best: the better of reading and copying a large tensor."""
    source = torch.ones(nbytes // 4, device=device)
    target = torch.empty_like(source)
    sides = {"read": lambda: source.sum(), "copy": lambda: target.copy_(source)}
    measured = interleaved(sides, rounds, device, warmup=2)
    fastest = {name: min(taken for turn in turns for taken in turn) for name, turns in measured.seconds.items()}
    return max(nbytes / fastest["read"], 2 * nbytes / fastest["copy"])
