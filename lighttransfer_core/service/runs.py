"""The record of a run: what has happened, how it ended, and what was asked of it meanwhile.

Written by its worker, read by any number of event streams. It knows nothing of models or of HTTP.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.specs import FINAL_STATES, ErrorRecord, RunSpec, RunState, RunStatus, spec_identity

Event = dict[str, Any]


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

    `events[i]` is the JSON of the event with cursor i + 1; the last one is of a kind in FINAL_STATES. Commands
    lie in an inbox until the worker takes them; once it has found none left at the end, no more are taken in.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.identity = spec_identity(spec)
        self.state: RunState = "waiting"
        self.place = 0
        self.wait_s: float | None = None
        self.paused = False
        self.begun = datetime.now(tz=UTC)
        self._inbox: list[Command] = []
        self._takes_commands = True
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

    def post(self, command: Command) -> None:
        """Raises InvalidInputError where the run is over, or as good as over."""
        with self._changed:
            if not self._takes_commands or self.state in FINAL_STATES:
                raise InvalidInputError("The run is over, so it takes no commands: start it again with other settings.")
            self._inbox.append(command)
            if command.action in ("pause", "step", "continue"):
                self.paused = command.action != "continue"

    def take_commands(self, last: bool) -> list[Command]:
        """What was posted; where it is the `last` look and there was nothing, no more is taken in."""
        with self._changed:
            taken, self._inbox = self._inbox, []
            self._takes_commands = bool(taken) or not last
            return taken

    def set_waiting(self, place: int, wait_s: float | None = None) -> None:
        """In line at this place; said in the stream too when the place has changed, or the wait becomes known."""
        with self._changed:
            news = (self.state, self.place) != ("waiting", place) or (self.wait_s is None and wait_s is not None)
            self.state, self.place, self.wait_s = "waiting", place, wait_s
            if news:
                self._append({"kind": "waiting", "place": place, "wait_s": wait_s})

    def set_running(self) -> None:
        with self._changed:
            self.state, self.place, self.wait_s = "running", 0, None
            self._changed.notify_all()

    def finish(self, state: RunState, result: dict[str, Any] | None = None, error: ErrorRecord | None = None) -> None:
        """Record how it ended; the last event says the same."""
        with self._changed:
            text = encode(result)
            self.state, self.place, self.wait_s, self.error = state, 0, None, error
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
                wait_s=self.wait_s,
                age_s=(datetime.now(tz=UTC) - self.begun).total_seconds(),
            )

    def events(self) -> list[str]:
        """The JSON of every event so far."""
        with self._changed:
            return list(self._events)

    def wake_readers(self) -> None:
        with self._changed:
            self._wake()

    def _append(self, event: Event) -> None:
        text = encode({**event, "at": round(time.time(), 3)})
        self._events.append(text)
        self.nbytes += len(text)
        self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for reader in self._readers:
            if reader.armed:
                reader.wake()
