"""What a job and the worker that gives it its turns may say to each other.

A job is a generator: each `next` is one turn, what it yields is an event (or why there is none), what it returns is the
run's result, and closing it cancels it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.runs import Event


@dataclass(frozen=True)
class Waiting:
    """Yielded instead of an event: the job cannot go on yet. `place` is its place in the line, from 1."""

    place: int


@dataclass(frozen=True)
class Resting:
    """Yielded instead of an event: the job wants no turn for now, and is asked again after so many seconds at most.

    A paused job rests without taking a place from others; one that only keeps to a speed limit does not.
    """

    seconds: float
    paused: bool = False


class Turns(Protocol):
    """What a job may ask of the worker that gives it its turns."""

    def announce(self, event: Event) -> None:
        """Append an event to every run of this model, those that come before the turn ends included."""

    def others_wait(self) -> bool:
        """Whether other runs of this model want turns too."""

    def commands(self, last: bool) -> list[Command]:
        """What was asked of this job since it was looked at last; where nothing is left at the `last` look, no more
        is taken in."""


Output = Event | Waiting | Resting
Steps = Generator[Output, None, dict[str, Any]]
JobFactory = Callable[[Turns], Steps]
