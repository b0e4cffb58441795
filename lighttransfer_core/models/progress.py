"""How far a long step has come. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done, in words, and the share done so far, 0 to 1."""


def no_progress(message: str, fraction: float) -> None:
    """Reports to nobody."""


def part_of(progress: Progress, start: float, end: float) -> Progress:
    """A progress of 0 to 1 that is seen as `start` to `end` of the whole."""
    return lambda message, fraction: progress(message, start + (end - start) * fraction)
