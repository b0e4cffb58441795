"""One worker thread per model advances its runs in turn: one prefill chunk or one decode step each.

A job is a generator: each `next` is one turn, what it yields is an event (or that it has to wait for bytes), what it
returns is the run's result, and closing it cancels it. It knows nothing of models or of HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lighttransfer_core.errors import DeadlineError
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.run_log import log_run
from lighttransfer_core.service.runs import Event, Run
from lighttransfer_core.service.specs import ErrorRecord, RunState, SweepRunSpec, weight
from lighttransfer_core.service.turns import JobFactory, Output, Resting, Steps, Waiting
from lighttransfer_core.service.waits import Durations

_LOG = logging.getLogger("lighttransfer.runs")
_IDLE_POLL_S = 0.05
_SWEEPS_AT_ONCE = 2
"""Sweeps that take turns; further ones wait for them, and for nothing else."""


@dataclass(eq=False)
class _Job:
    run: Run
    factory: JobFactory
    steps: Steps | None = None
    asked_at: float = field(default_factory=time.perf_counter)
    turn_ended_at: float = field(default_factory=time.perf_counter)
    began_at: float | None = None
    resting: Resting | None = None
    waited_s: float = 0.0
    compute_s: float = 0.0

    @property
    def weight(self) -> int:
        """Lanes that it has turns for; a paused one takes no place from others."""
        return 0 if self.resting is not None and self.resting.paused else weight(self.run.spec)

    @property
    def is_sweep(self) -> bool:
        return isinstance(self.run.spec, SweepRunSpec)


@dataclass(frozen=True)
class _TurnsOf:
    """What one job may ask of its worker."""

    worker: Worker
    run: Run

    def announce(self, event: Event) -> None:
        self.worker.announce(event)

    def others_wait(self) -> bool:
        return self.worker.others_wait()

    def commands(self, last: bool) -> list[Command]:
        return self.run.take_commands(last)


@dataclass(frozen=True)
class _Ending:
    state: RunState
    result: dict[str, Any] | None = None
    error: ErrorRecord | None = None


class Worker:
    """Advances the runs of one model.

    Parameters
    ----------
    active_lanes
        How many lanes share the turns; runs whose lanes are too many beside those of others wait in line.
    on_end
        Called with each run that has ended.
    wall_clock_s, sweep_clock_s
        How long a run, or a sweep, may take from its first turn on.
    """

    def __init__(
        self,
        name: str,
        active_lanes: int,
        on_end: Callable[[Run], None],
        wall_clock_s: float = float("inf"),
        sweep_clock_s: float = float("inf"),
    ) -> None:
        self._active_lanes = active_lanes
        self._on_end = on_end
        self._wall_clock_s = wall_clock_s
        self._sweep_clock_s = sweep_clock_s
        self._durations = Durations()
        self._nap_s = _IDLE_POLL_S
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
            return len(self._left_over())

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
            jobs = [*self._taking_turns(), *self._line]
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
                self._changed.wait(self._nap_s if self._active else None)
                self._stalled, self._nap_s = 0, _IDLE_POLL_S
            leftover = self._active.popleft() if self._active else self._line.popleft() if self._line else None
            if leftover is not None:
                leftover.run.unwanted.set()
            return leftover

    def _admit(self) -> None:
        for job in [job for job in self._line if job.run.unwanted.is_set()]:
            self._line.remove(job)
            self._active.append(job)
        staying = self._left_over()
        self._active.extend(job for job in self._line if job not in staying)
        self._line = deque(staying)
        self._number_line()

    def _left_over(self) -> list[_Job]:
        """Those in line for whom there is no room yet. Nobody overtakes but past a sweep, which waits for another one;
        a run alone always has room."""
        taken = sum(job.weight for job in self._taking_turns())
        sweeps = sum(job.is_sweep for job in self._taking_turns())
        staying: list[_Job] = []
        for job in self._line:
            if job.is_sweep:
                has_room = sweeps < _SWEEPS_AT_ONCE
                sweeps += has_room
            else:
                waits = not all(one.is_sweep for one in staying)
                has_room = not waits and (not taken or taken + job.weight <= self._active_lanes)
                taken += job.weight if has_room else 0
            if not has_room:
                staying.append(job)
        return staying

    def _number_line(self) -> None:
        staying = self._left_over()
        next_in = [job for job in self._line if job not in staying]
        used = [job.compute_s for job in [*self._taking_turns(), *next_in] if job.weight]
        runs = [job for job in staying if not job.is_sweep]
        waits = self._durations.expected_waits(used, len(runs))
        for place, (job, wait_s) in enumerate(zip(runs, waits, strict=True), start=1):
            job.run.set_waiting(place, wait_s)
        for place, job in enumerate((job for job in staying if job.is_sweep), start=1):
            job.run.set_waiting(place)

    def _taking_turns(self) -> list[_Job]:
        return [*self._active, *filter(None, [self._current])]

    def _turn(self, job: _Job) -> bool:
        """Advance a job by one turn; whether it goes on."""
        started = time.perf_counter()
        if job.resting is None:
            job.waited_s += started - job.turn_ended_at
        ending = self._advance(job)
        with self._changed:
            self._announced = None
        job.turn_ended_at = time.perf_counter()
        job.compute_s += job.turn_ended_at - started
        if ending is None:
            return True
        self._stalled = 0
        if ending.state == "done" and not job.is_sweep:
            self._durations.add(job.compute_s)
        job.run.finish(ending.state, ending.result, ending.error)
        log_run(job.run, job.compute_s, time.perf_counter() - job.asked_at)
        return False

    def _advance(self, job: _Job) -> _Ending | None:
        """One `next` of the job's generator, or its closing; how it ended, if it did."""
        try:
            if job.run.unwanted.is_set():
                _close(job)
                return _Ending("cancelled")
            if job.steps is None:
                job.steps, job.began_at = job.factory(_TurnsOf(self, job.run)), time.monotonic()
            elif job.began_at is not None and time.monotonic() - job.began_at > self._clock_s(job):
                _close(job)
                raise self._time_is_up(job)
            self._record(job, next(job.steps))
        except StopIteration as stop:
            return _Ending("done", result=stop.value)
        except Exception as error:
            _LOG.error("run %s failed\n%s", job.run.identity[:12], traceback.format_exc())
            record = ErrorRecord.of(error)
            _release_frames(error)
            return _Ending("failed", error=record)
        return None

    def _clock_s(self, job: _Job) -> float:
        return self._sweep_clock_s if job.is_sweep else self._wall_clock_s

    def _time_is_up(self, job: _Job) -> DeadlineError:
        if job.is_sweep:
            return DeadlineError(
                f"The sweep took longer than the {self._sweep_clock_s:,.0f} s that one may take here, and was ended. "
                "Its results are kept: start it again to go on, or start the backend with a larger --max-sweep-seconds."
            )
        return DeadlineError(
            f"The run took longer than the {self._wall_clock_s:,.0f} s that a run may take here, and was ended: ask "
            "for fewer tokens, or start the backend with a larger --max-seconds."
        )

    def _record(self, job: _Job, output: Output) -> None:
        job.resting = output if isinstance(output, Resting) else None
        if isinstance(output, Waiting | Resting):
            self._stalled += 1
            if isinstance(output, Waiting):
                job.run.set_waiting(output.place)
            else:
                self._nap_s = min(self._nap_s, output.seconds)
            return
        self._stalled = 0
        job.run.set_running()
        job.run.append({**output, "waited_s": round(job.waited_s, 6)})
        job.waited_s = 0.0


def _close(job: _Job) -> None:
    if job.steps is not None:
        job.steps.close()


def _release_frames(error: BaseException) -> None:
    """Let go of what the frames of a traceback hold, tensors among it."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
