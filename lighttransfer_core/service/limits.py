"""What one backend takes on, from all and from one client."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from lighttransfer_core.errors import InvalidInputError, RateLimitedError
from lighttransfer_core.service.specs import CompareSpec, RunSpec, SweepRunSpec
from lighttransfer_core.tasks import get_task

_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one backend.

    Attributes
    ----------
    active_lanes
        Lanes of one model that share its turns; a run that is no comparison counts as one.
    max_waiting
        Runs that may wait in line, over all models.
    records_nbytes, prompts_nbytes
        Bytes that ended runs and stored prompts may hold.
    max_prompt_tokens
        Of one prompt; None: as many as positions and memory allow.
    max_new_tokens
        Of one answer.
    wall_clock_s
        Seconds that a run may take from its first turn on, pauses included.
    sweep_clock_s
        The same of a sweep, which goes on where it stopped when it is started again.
    results_nbytes
        Bytes in the folder of results, above which no sweep is begun.
    requests_per_minute
        Runs, prompts and commands that one client may send; a fifth of them at once.
    leave_grace_s
        Seconds after which a request is given up whose page was closed, unless somebody has come back with it.
    """

    active_lanes: int = 8
    max_waiting: int = 64
    records_nbytes: int = 64 * 2**20
    prompts_nbytes: int = 32 * 2**20
    max_prompt_tokens: int | None = None
    max_new_tokens: int = 4096
    wall_clock_s: float = 1800.0
    sweep_clock_s: float = 4 * 3600.0
    results_nbytes: int = 2**30
    requests_per_minute: float = 300.0
    leave_grace_s: float = 20.0

    def check(self, spec: RunSpec) -> None:
        """Raises InvalidInputError where a run asks for more than is given here."""
        asked = _new_tokens(spec)
        if asked > self.max_new_tokens:
            raise InvalidInputError(
                f"{asked:,} new tokens are asked for, and this backend gives {self.max_new_tokens:,}: ask for fewer, "
                "or start the backend with a larger --max-new-tokens."
            )


def _new_tokens(spec: RunSpec) -> int:
    """Of the longest answer that a run may give."""
    if isinstance(spec, CompareSpec):
        return spec.max_new_tokens
    if not isinstance(spec, SweepRunSpec):
        return 0
    limits = [get_task(name).max_new_tokens for name in spec.sweep.tasks]
    return min(max(limits), spec.sweep.max_new_tokens or max(limits))


class RateLimit:
    """A bucket of requests for each client, refilled steadily.

    Parameters
    ----------
    per_minute
        How many requests flow back in a minute; a bucket holds a fifth of that.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = max(per_minute / 5, 1.0)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Raises RateLimitedError where the client's bucket is empty."""
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(client, (self._most, now))
            left = min(self._most, left + (now - then) * self._per_second)
            self._buckets[client] = (left - 1 if left >= 1 else left, now)
            while len(self._buckets) > _CLIENTS:
                self._buckets.popitem(last=False)
        if left < 1:
            raise RateLimitedError(
                f"Too many requests in a short time: try again in {(1 - left) / self._per_second:.1f} s."
            )
