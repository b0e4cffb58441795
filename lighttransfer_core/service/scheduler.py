"""The workers, one per model, and the bound on how many runs may wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lighttransfer_core.errors import QueueFullError
from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.turns import JobFactory
from lighttransfer_core.service.worker import Worker

_MAX_WORKERS = 16


class Scheduler:
    """The workers, one per model key, made when first needed.

    Parameters
    ----------
    active_lanes, wall_clock_s, sweep_clock_s
        Of each worker.
    max_waiting
        Runs that may wait in line, over all models.
    """

    def __init__(
        self,
        on_end: Callable[[Run], None],
        active_lanes: int = 8,
        max_waiting: int = 64,
        wall_clock_s: float = float("inf"),
        sweep_clock_s: float = float("inf"),
    ) -> None:
        self._on_end = on_end
        self._active_lanes = active_lanes
        self._max_waiting = max_waiting
        self._wall_clock_s = wall_clock_s
        self._sweep_clock_s = sweep_clock_s
        self._workers: dict[str, Worker] = {}
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(worker.waiting for worker in self._workers.values())

    def submit(self, model_key: str, run: Run, factory: JobFactory) -> None:
        if self.waiting >= self._max_waiting:
            raise QueueFullError(
                f"{self._max_waiting} runs are waiting already, and no more may; try again when some have ended."
            )
        with self._lock:
            worker = self._workers.get(model_key) or self._new_worker(model_key)
            worker.submit(run, factory)

    def wake(self) -> None:
        with self._lock:
            for worker in self._workers.values():
                worker.wake()

    def close(self, timeout_s: float = 3.0) -> bool:
        """Cancel every run and end the workers; whether all have ended, as a long turn cannot be broken off."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.stop()
        deadline = time.monotonic() + timeout_s
        return all(worker.join(max(deadline - time.monotonic(), 0.0)) for worker in workers)

    def _new_worker(self, model_key: str) -> Worker:
        if len(self._workers) >= _MAX_WORKERS:
            self._retire_idle_worker()
        worker = self._workers[model_key] = Worker(
            model_key, self._active_lanes, self._on_end, self._wall_clock_s, self._sweep_clock_s
        )
        return worker

    def _retire_idle_worker(self) -> None:
        idle = next((key for key, worker in self._workers.items() if worker.idle), None)
        if idle is None:
            raise QueueFullError(f"{_MAX_WORKERS} models are busy already; try again when one has no more runs.")
        self._workers.pop(idle).stop()
