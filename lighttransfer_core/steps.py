"""Long work in short turns: a generator yields between them, so that others can have theirs, and returns the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

Turn = TypeVar("Turn")
Said = TypeVar("Said")
Result = TypeVar("Result")


def retold(steps: Generator[Turn, None, Result], say: Callable[[Turn], Said]) -> Generator[Said, None, Result]:
    """The turns of `steps` in other words, and its result."""
    try:
        while True:
            try:
                turn = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield say(turn)
    finally:
        steps.close()


def timed(steps: Generator[Turn, None, Result]) -> Generator[Turn, None, tuple[Result, float]]:
    """The turns of `steps`, and its result with the seconds that they took: those of others in between are left out."""
    seconds = 0.0
    try:
        while True:
            began = time.perf_counter()
            try:
                turn = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result, seconds + time.perf_counter() - began
            seconds += time.perf_counter() - began
            yield turn
    finally:
        steps.close()


def finished(steps: Generator[object, None, Result]) -> Result:
    """What a generator returns, after all of its turns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
