"""How long those in line will wait, judged by what lately ended runs took. Pure arithmetic."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_REMEMBERED = 8


class Durations:
    """The computing time of the runs that ended lately."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def expected_waits(self, used: Sequence[float], in_line: int) -> list[float | None]:
        """Seconds until each run in line gets its first turn, given what the active ones have computed so far.

        None where no run has ended yet, or where nothing active makes way.
        """
        if not self._seconds or not used:
            return [None] * in_line
        mean = sum(self._seconds) / len(self._seconds)
        return list(shared_waits([max(mean - seconds, 0.0) for seconds in used], [mean] * in_line))


def shared_waits(remaining: Sequence[float], line: Sequence[float]) -> list[float]:
    """When each of the line is admitted, where the active runs share one worker evenly and one that ends makes way.

    `remaining` are seconds that the active runs still need, `line` those that the waiting ones will need, in order.
    """
    active, now, admitted = sorted(remaining), 0.0, []
    for needed in line:
        least = active[0]
        now += least * len(active)
        admitted.append(now)
        active = sorted([*(seconds - least for seconds in active[1:]), needed])
    return admitted
