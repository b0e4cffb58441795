"""The record of a run, and the book of all runs: who asked for which, what has happened, how it ended.

A run is one computation; every request for it has a token of its own, so forty equal requests share the run and none
can cancel it for the others. It knows nothing of models or of HTTP.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lighttransfer_core.errors import RunNotFoundError
from lighttransfer_core.service.specs import FINAL_STATES, ErrorRecord, RunSpec, RunState, RunStatus, spec_identity
from lighttransfer_core.service.store import ByteStore

Event = dict[str, Any]
_TOKEN_NBYTES = 200
_TOKENS_PER_RUN = 10_000


def encode(value: Any) -> str:
    """JSON as browsers read it: a number that is not finite becomes null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class Reader:
    """One open event stream, woken by the worker without ever holding it up."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._flag = asyncio.Event()
        self.armed = False

    def wake(self) -> None:
        self.armed = False
        self._loop.call_soon_threadsafe(self._flag.set)

    async def wait(self) -> None:
        await self._flag.wait()
        self._flag.clear()


class Run:
    """What has happened in one computation. Written by its worker, read by anyone.

    `events[i]` is the JSON of the event with cursor i + 1; the last one is of a kind in FINAL_STATES.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.identity = spec_identity(spec)
        self.state: RunState = "waiting"
        self.place = 0
        self.error: ErrorRecord | None = None
        self.result: dict[str, Any] | None = None
        self.nbytes = 0
        self.unwanted = threading.Event()
        self.tokens: list[str] = []
        self._events: list[str] = []
        self._readers: set[Reader] = set()
        self._changed = threading.Condition()

    def append(self, event: Event) -> None:
        with self._changed:
            self._append(event)

    def set_waiting(self, place: int) -> None:
        with self._changed:
            self.state, self.place = "waiting", place
            self._changed.notify_all()

    def set_running(self) -> None:
        with self._changed:
            self.state, self.place = "running", 0
            self._changed.notify_all()

    def finish(self, state: RunState, result: dict[str, Any] | None = None, error: ErrorRecord | None = None) -> None:
        """Record how it ended; the last event says the same."""
        with self._changed:
            text = encode(result)
            self.state, self.place, self.error = state, 0, error
            self.result = None if result is None else json.loads(text)
            self.nbytes += len(text)
            self._append({"kind": state, **({"error": error.to_dict()} if error else {})})

    def wait_for(self, condition: Callable[[Run], bool], timeout_s: float) -> bool:
        """Block until the condition holds of this record; whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), timeout_s)

    def read(self, after: int, reader: Reader | None = None) -> tuple[list[str], bool]:
        """The events past a cursor, and whether the run has ended. A reader is woken once there is more."""
        with self._changed:
            news = self._events[after:]
            ended = self.state in FINAL_STATES
            if reader is not None:
                reader.armed = not news and not ended
            return news, ended

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        reader = Reader()
        with self._changed:
            self._readers.add(reader)
        try:
            yield reader
        finally:
            with self._changed:
                self._readers.remove(reader)

    def status(self, token: str) -> RunStatus:
        with self._changed:
            return RunStatus(
                token=token,
                kind=self.spec.kind,
                state=self.state,
                place=self.place,
                events=len(self._events),
                error=self.error,
                result=self.result,
            )

    def wake_readers(self) -> None:
        with self._changed:
            self._wake()

    def _append(self, event: Event) -> None:
        text = encode(event)
        self._events.append(text)
        self.nbytes += len(text)
        self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for reader in self._readers:
            if reader.armed:
                reader.wake()


@dataclass
class Ticket:
    """One request for a run."""

    run: Run
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    cancelled: bool = False

    def status(self) -> RunStatus:
        if self.cancelled:
            return RunStatus(token=self.token, kind=self.run.spec.kind, state="cancelled")
        return self.run.status(self.token)


class RunBook:
    """Every run that is under way, and those that ended lately.

    Parameters
    ----------
    records_nbytes
        Bytes of events and results that ended runs may hold; the least recently read leaves first.
    """

    def __init__(self, records_nbytes: int) -> None:
        self._lock = threading.RLock()
        self._tickets: dict[str, Ticket] = {}
        self._live: dict[str, Run] = {}
        self._done: dict[str, Run] = {}
        self._records: ByteStore[Run, Run] = ByteStore(records_nbytes, on_evict=self._forget)

    @property
    def records_nbytes(self) -> int:
        return self._records.nbytes

    @property
    def live_runs(self) -> list[Run]:
        with self._lock:
            return list(self._live.values())

    def start(
        self, spec: RunSpec, submit: Callable[[Run], None], usable: Callable[[Run], bool] = lambda _run: True
    ) -> RunStatus:
        """A token for the run of this spec: one under way, one that is kept and usable, or a new one, submitted."""
        with self._lock:
            identity = spec_identity(spec)
            run = self._live.get(identity) or self._done.get(identity)
            if run is None or run.state in ("failed", "cancelled") or (run.state == "done" and not usable(run)):
                run = Run(spec)
                submit(run)
                self._live[identity] = run
            return self._ticket(run).status()

    def find(self, token: str) -> Ticket:
        with self._lock:
            ticket = self._tickets.get(token)
            if ticket is None:
                raise RunNotFoundError(
                    "No run has this token: it was never made, or its result has left to make room. Start it again; "
                    "what is still kept is not computed twice."
                )
            self._records.get(ticket.run)
            return ticket

    def cancel(self, token: str) -> None:
        """Give up one request; the run itself ends at its next turn once nobody asks for it any more."""
        with self._lock:
            ticket = self.find(token)
            run = ticket.run
            if ticket.cancelled or run.state in FINAL_STATES:
                return
            ticket.cancelled = True
            run.wake_readers()
            if all(self._tickets[other].cancelled for other in run.tokens):
                run.unwanted.set()
                if self._live.get(run.identity) is run:
                    del self._live[run.identity]

    def archive(self, run: Run) -> None:
        """Move a run that has ended to the bounded store."""
        with self._lock:
            if self._live.get(run.identity) is run:
                del self._live[run.identity]
            # a load is done anew each time: what counts is the model in memory, which may have left since
            if run.state == "done" and run.spec.kind != "load":
                self._done[run.identity] = run
            self._records.put(run, run, run.nbytes + _TOKEN_NBYTES * len(run.tokens))

    def _ticket(self, run: Run) -> Ticket:
        ticket = Ticket(run)
        self._tickets[ticket.token] = ticket
        run.tokens.append(ticket.token)
        if len(run.tokens) > _TOKENS_PER_RUN:
            del self._tickets[run.tokens.pop(0)]
        return ticket

    def _forget(self, run: Run) -> None:
        if self._done.get(run.identity) is run:
            del self._done[run.identity]
        for token in run.tokens:
            self._tickets.pop(token, None)
