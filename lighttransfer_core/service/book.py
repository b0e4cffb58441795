"""The book of all runs: who asked for which, who still follows, and who may change one.

A run is one computation; every request for it has a token of its own, so forty equal requests share the run and none
can cancel or change it for the others, but for letting it go on where it is paused. It knows nothing of models or of
HTTP.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from lighttransfer_core.errors import InvalidInputError, RunNotFoundError, SharedRunError
from lighttransfer_core.service.controls import Command, applied
from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.specs import FINAL_STATES, RunSpec, RunStatus, spec_identity
from lighttransfer_core.service.store import ByteStore

REPLACED = "A newer run of the same visitor took its place."
LEFT = "Nobody followed it any more."

_TOKEN_NBYTES = 200
_TOKENS_PER_RUN = 10_000


@dataclass
class Ticket:
    """One request for a run.

    Attributes
    ----------
    client
        Who asked, as far as is known.
    cancelled, reason
        Whether it was given up, and why where that was not its owner's wish.
    left
        Whether its owner's page was closed; using the token again takes that back.
    streams
        Event streams that are open for it.
    """

    run: Run
    client: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    cancelled: bool = False
    reason: str = ""
    left: bool = False
    streams: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While an event stream is open; entered and left in the event loop's thread."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def status(self) -> RunStatus:
        status = self.run.status(self.token)
        if not self.cancelled:
            return status
        return replace(status, state="cancelled", place=0, error=None, result=None, wait_s=None, reason=self.reason)


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
        self._open: set[Run] = set()
        self._live: dict[str, Run] = {}
        self._done: dict[str, Run] = {}
        self._records: ByteStore[Run, Run] = ByteStore(records_nbytes, on_evict=self._forget)

    @property
    def records_nbytes(self) -> int:
        return self._records.nbytes

    @property
    def live_runs(self) -> list[Run]:
        with self._lock:
            return list(self._open)

    @property
    def open_streams(self) -> int:
        """Event streams of all requests."""
        with self._lock:
            return sum(ticket.streams for ticket in self._tickets.values())

    def start(
        self,
        spec: RunSpec,
        submit: Callable[[Run], None],
        usable: Callable[[Run], bool] = lambda _run: True,
        client: str = "",
    ) -> RunStatus:
        """A token for the run of this spec: one under way, one that is kept and usable, or a new one, submitted.

        A client has one run at a time beside loads: what it asked for before is given up, unless the run is over
        already and takes no turns.
        """
        with self._lock:
            identity = spec_identity(spec)
            run = self._live.get(identity) or self._done.get(identity)
            if run is None or run.state in ("failed", "cancelled") or (run.state == "done" and not usable(run)):
                run = Run(spec)
                submit(run)
                self._live[identity] = run
                self._open.add(run)
            if client and spec.kind != "load" and run.state not in FINAL_STATES:
                self._replace(client, run)
            return self._ticket(run, client).status()

    def find(self, token: str, peek: bool = False) -> Ticket:
        """The request of a token; looking at it shows that its owner is there, unless somebody else takes a `peek`."""
        with self._lock:
            ticket = self._tickets.get(token)
            if ticket is None:
                raise RunNotFoundError(
                    "No run has this token: it was never made, or its result has left to make room. Start it again; "
                    "what is still kept is not computed twice."
                )
            ticket.left = ticket.left and peek
            self._records.get(ticket.run)
            return ticket

    def cancel(self, token: str, reason: str = "") -> None:
        """Give up one request; the run itself ends at its next turn once nobody asks for it any more."""
        with self._lock:
            self._give_up(self.find(token), reason)

    def leave(self, token: str) -> None:
        """The request's owner may be gone: see `drop_left`."""
        with self._lock:
            self.find(token).left = True

    def drop_left(self, token: str) -> bool:
        """Give the request up unless its token was used since `leave`; whether that is still open, as it is watched."""
        with self._lock:
            ticket = self._tickets.get(token)
            if ticket is None or not ticket.left:
                return False
            if not ticket.streams:
                self._give_up(ticket, LEFT)
            return ticket.streams > 0

    def command(self, token: str, command: Command, check: Callable[[RunSpec], None]) -> None:
        """Hand a command to the run, which becomes the run of the spec that the command makes of its own.

        Raises
        ------
        InvalidInputError
            The run is no comparison, has ended, or `check` refuses the new spec.
        SharedRunError
            Somebody else asked for it too, and the command does more than let a paused run go on.
        """
        with self._lock:
            ticket = self.find(token)
            if ticket.cancelled:
                raise InvalidInputError("This request was given up, so it takes no commands: start it again.")
            run = ticket.run
            spec = applied(command, run.spec)
            check(spec)
            others = [self._tickets[other] for other in run.tokens if other != token]
            alone = all(other.cancelled or other.left for other in others)
            goes_on = command.action == "continue" or (run.paused and command.action == "step")
            if not alone and not goes_on:
                raise SharedRunError(
                    "Others follow this run as well, so it is not changed for them: make a copy of your own, which "
                    "starts from the same prefill."
                )
            run.post(command)
            self._become(run, spec)

    def archive(self, run: Run) -> None:
        """Move a run that has ended to the bounded store."""
        with self._lock:
            self._open.discard(run)
            if self._live.get(run.identity) is run:
                del self._live[run.identity]
            # a load is done anew each time: what counts is the model in memory, which may have left since
            if run.state == "done" and run.spec.kind != "load":
                self._done[run.identity] = run
            self._records.put(run, run, run.nbytes + _TOKEN_NBYTES * len(run.tokens))

    def _become(self, run: Run, spec: RunSpec) -> None:
        """From now on equal requests find this run under the new spec, if they find none there already."""
        if self._live.get(run.identity) is run:
            del self._live[run.identity]
        run.spec, run.identity = spec, spec_identity(spec)
        self._live.setdefault(run.identity, run)

    def _replace(self, client: str, newer: Run) -> None:
        for run in self._open - {newer}:
            if run.spec.kind != "load":
                for ticket in [self._tickets[token] for token in run.tokens]:
                    if ticket.client == client:
                        self._give_up(ticket, REPLACED)

    def _give_up(self, ticket: Ticket, reason: str) -> None:
        run = ticket.run
        if ticket.cancelled or run.state in FINAL_STATES:
            return
        ticket.cancelled, ticket.reason = True, reason
        run.wake_readers()
        if all(self._tickets[other].cancelled for other in run.tokens):
            run.unwanted.set()
            if self._live.get(run.identity) is run:
                del self._live[run.identity]

    def _ticket(self, run: Run, client: str) -> Ticket:
        ticket = Ticket(run, client)
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
