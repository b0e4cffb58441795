"""One worker thread per model advances its runs in turn: one prefill chunk or one decode step each.

A job is a generator: each `next` is one turn, what it yields is an event (or that it has to wait for bytes), what it
returns is the run's result, and closing it cancels it. It knows nothing of models or of HTTP.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from lighttransfer_core.service.runs import Event, Run
from lighttransfer_core.service.specs import ErrorRecord, RunState

_LOG = logging.getLogger("lighttransfer.runs")
_IDLE_POLL_S = 0.05


@dataclass(frozen=True)
class Waiting:
    """Yielded instead of an event: the job cannot go on yet. `place` is its place in the line, from 1."""

    place: int


class Turns(Protocol):
    """What a job may ask of the worker that gives it its turns."""

    def announce(self, event: Event) -> None:
        """Append an event to every run of this model, those that come before the turn ends included."""

    def others_wait(self) -> bool:
        """Whether other runs of this model want turns too."""


Steps = Generator[Event | Waiting, None, dict[str, Any]]
JobFactory = Callable[[Turns], Steps]


@dataclass(eq=False)
class _Job:
    run: Run
    factory: JobFactory
    steps: Steps | None = None
    asked_at: float = field(default_factory=time.perf_counter)
    turn_ended_at: float = field(default_factory=time.perf_counter)
    waited_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True)
class _Ending:
    state: RunState
    result: dict[str, Any] | None = None
    error: ErrorRecord | None = None


class Worker:
    """Advances the runs of one model.

    Parameters
    ----------
    active_runs
        How many runs share the turns; the others wait in line.
    on_end
        Called with each run that has ended.
    """

    def __init__(self, name: str, active_runs: int, on_end: Callable[[Run], None]) -> None:
        self._active_runs = active_runs
        self._on_end = on_end
        self._active: deque[_Job] = deque()
        self._line: deque[_Job] = deque()
        self._current: _Job | None = None
        self._announced: Event | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._stalled = 0
        self._thread = threading.Thread(target=self._work, name=f"worker-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Runs in line that had no turn yet."""
        with self._changed:
            free = self._active_runs - len(self._active) - (self._current is not None)
            return max(0, len(self._line) - free)

    @property
    def idle(self) -> bool:
        with self._changed:
            return not (self._active or self._line or self._current)

    def submit(self, run: Run, factory: JobFactory) -> None:
        with self._changed:
            self._line.append(_Job(run, factory))
            if self._announced is not None:
                run.append(self._announced)
            self._number_line()
            self._changed.notify_all()

    def wake(self) -> None:
        """Look at once at what was waiting or was cancelled."""
        with self._changed:
            self._stalled = 0
            self._changed.notify_all()

    def stop(self) -> None:
        """End after the turn under way, and cancel what has not ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def announce(self, event: Event) -> None:
        with self._changed:
            self._announced = event
            jobs = [*self._active, *self._line, *filter(None, [self._current])]
        for job in jobs:
            job.run.append(event)

    def others_wait(self) -> bool:
        with self._changed:
            return bool(self._active or self._line)

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            if self._turn(job):
                with self._changed:
                    self._active.append(job)
                    self._current = None
            else:
                with self._changed:
                    self._current = None
                job.steps = None
                self._on_end(job.run)
            del job

    def _next_job(self) -> _Job | None:
        with self._changed:
            while not self._closing:
                self._admit()
                if self._active and self._stalled < len(self._active):
                    self._current = self._active.popleft()
                    return self._current
                self._changed.wait(_IDLE_POLL_S if self._active else None)
                self._stalled = 0
            leftover = self._active.popleft() if self._active else self._line.popleft() if self._line else None
            if leftover is not None:
                leftover.run.unwanted.set()
            return leftover

    def _admit(self) -> None:
        for job in [job for job in self._line if job.run.unwanted.is_set()]:
            self._line.remove(job)
            self._active.append(job)
        while self._line and len(self._active) < self._active_runs:
            self._active.append(self._line.popleft())
        self._number_line()

    def _number_line(self) -> None:
        for place, job in enumerate(self._line, start=1):
            job.run.set_waiting(place)

    def _turn(self, job: _Job) -> bool:
        """Advance a job by one turn; whether it goes on."""
        started = time.perf_counter()
        job.waited_s += started - job.turn_ended_at
        ending = self._advance(job)
        with self._changed:
            self._announced = None
        job.turn_ended_at = time.perf_counter()
        job.compute_s += job.turn_ended_at - started
        if ending is None:
            return True
        self._stalled = 0
        job.run.finish(ending.state, ending.result, ending.error)
        _log_run(job)
        return False

    def _advance(self, job: _Job) -> _Ending | None:
        """One `next` of the job's generator, or its closing; how it ended, if it did."""
        try:
            if job.run.unwanted.is_set():
                if job.steps is not None:
                    job.steps.close()
                return _Ending("cancelled")
            if job.steps is None:
                job.steps = job.factory(self)
            self._record(job, next(job.steps))
        except StopIteration as stop:
            return _Ending("done", result=stop.value)
        except Exception as error:
            _LOG.error("run %s failed\n%s", job.run.identity[:12], traceback.format_exc())
            record = ErrorRecord.of(error)
            _release_frames(error)
            return _Ending("failed", error=record)
        return None

    def _record(self, job: _Job, output: Event | Waiting) -> None:
        if isinstance(output, Waiting):
            self._stalled += 1
            job.run.set_waiting(output.place)
            return
        self._stalled = 0
        job.run.set_running()
        job.run.append({**output, "waited_s": round(job.waited_s, 6)})
        job.waited_s = 0.0


def _release_frames(error: BaseException) -> None:
    """Let go of what the frames of a traceback hold, tensors among it."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def _log_run(job: _Job) -> None:
    run = job.run
    line = {
        "run": run.identity[:12],
        "kind": run.spec.kind,
        "model": run.spec.model,
        "state": run.state,
        "requests": len(run.tokens),
        "events": run.status("").events,
        "compute_s": round(job.compute_s, 3),
        "total_s": round(time.perf_counter() - job.asked_at, 3),
        "error": run.error.type if run.error else None,
    }
    _LOG.info(json.dumps(line))
