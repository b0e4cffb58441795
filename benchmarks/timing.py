"""Measuring several sides of one claim in one run: interleaved rounds, paired ratios, medians with their spread."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of `count` measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Rounds:
    """Seconds of each side in each round, and what each side returned last."""

    seconds: dict[str, list[float]]
    last: dict[str, Any]

    def time(self, side: str) -> Spread:
        return Spread.of(self.seconds[side])

    def ratio(self, over: str, under: str) -> Spread:
        """How many times as long `over` took as `under`, round by round, so that slow moments hit both."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return Spread.of([one / other for one, other in pairs])


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def interleaved(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    warmup: int = 0,
    budget_s: float = math.inf,
) -> Rounds:
    """Runs every side once a round, each round beginning with another side.

    `warmup` rounds come first and are not counted. No round begins once `budget_s` is spent, but one is always run.
    """
    names = list(sides)
    measured = Rounds({name: [] for name in names}, dict.fromkeys(names))
    start = time.perf_counter()
    for number in range(warmup + rounds):
        if number > warmup and time.perf_counter() - start > budget_s:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            measured.last[name] = None
            gc.collect()
            synchronize(device)
            began = time.perf_counter()
            measured.last[name] = sides[name]()
            synchronize(device)
            if number >= warmup:
                measured.seconds[name].append(time.perf_counter() - began)
    return measured


def memory_bandwidth(device: torch.device, nbytes: int = 2**29, rounds: int = 7) -> float:
    """Bytes a second that this machine moves at best: the better of reading and copying a large tensor."""
    source = torch.ones(nbytes // 4, device=device)
    target = torch.empty_like(source)
    sides = {"read": lambda: source.sum(), "copy": lambda: target.copy_(source)}
    measured = interleaved(sides, rounds, device, warmup=2)
    return max(nbytes / min(measured.seconds["read"]), 2 * nbytes / min(measured.seconds["copy"]))
