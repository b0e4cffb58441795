"""Runs as the pages see them: which recipe has one, how it stands, and its result.

Addresses hold recipes, never tokens. The book maps a recipe's identity to the token of a run that this page process
has seen, so that a reload, a second tab or another visitor finds it; each session asks for its own token before it
follows or cancels one. Results are plain JSON; no tensor comes here.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import streamlit as st

from lighttransfer_core.errors import BackendUnavailableError, LightTransferError, RunFailedError, RunNotFoundError
from lighttransfer_core.service.launcher import Backend
from lighttransfer_core.service.specs import RunSpec, RunStatus, spec_identity
from pages.parts import backend
from pages.parts.prompts import Prompt

State = Literal["none", "running", "done", "failed", "cancelled", "unavailable"]

LOST: Final = "The run is gone: the backend that held it ended before the run did, or has dropped it."
_BOOK_SIZE: Final = 64
_LATEST: Final = "latest_run"


@dataclass
class Entry:
    """A run that was seen: its token, and its result once it has one."""

    token: str
    result: dict[str, Any] | None = None


class RunBook:
    """Identity to entry, least recently used goes first. Safe between threads."""

    def __init__(self, size: int = _BOOK_SIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def get(self, identity: str) -> Entry | None:
        with self._lock:
            entry = self._entries.get(identity)
            if entry is not None:
                self._entries.move_to_end(identity)
            return entry

    def note(self, identity: str, status: RunStatus) -> None:
        with self._lock:
            self._entries[identity] = Entry(status.token, status.result)
            self._entries.move_to_end(identity)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def drop(self, identity: str) -> None:
        with self._lock:
            self._entries.pop(identity, None)


@st.cache_resource(show_spinner=False)
def book() -> RunBook:
    """The book of this page process."""
    return RunBook()


@dataclass(frozen=True)
class Outcome:
    """How a recipe's run stands for this session."""

    state: State
    token: str | None = None
    result: dict[str, Any] | None = None
    error: LightTransferError | None = None
    reason: str = ""
    age_s: float = 0.0


@dataclass
class Held:
    """The tokens of one visit, by which the backend is told when its tab is closed."""

    backend: Backend
    tokens: set[str] = field(default_factory=set)
    visitor: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def leave(self) -> None:
        """What nobody else follows ends after a while, unless the visitor comes back with a reload."""
        for token in self.tokens:
            with suppress(LightTransferError):  # it has ended, or its backend has: then there is nothing to give up
                self.backend.client(timeout_s=0.0).leave(token)


@st.cache_resource(scope="session", show_spinner=False, on_release=Held.leave)
def held() -> Held:
    """This visit's."""
    return Held(backend.backend())


def outcome(spec: RunSpec) -> Outcome:
    """How the run of a spec stands, without starting one."""
    identity = spec_identity(spec)
    failure = _failures().get(identity)
    if failure is not None:
        return Outcome("failed", error=failure)
    entry, own = book().get(identity), _own_tokens().get(identity)
    if entry is not None and entry.result is not None:
        return Outcome("done", entry.token, entry.result)
    token = own or (entry.token if entry is not None else None)
    return Outcome("none") if token is None else _ask(spec, identity, token)


def _ask(spec: RunSpec, identity: str, token: str) -> Outcome:
    own = identity in _own_tokens()
    try:
        status = backend.client().status(token, peek=not own)
        if not own and not status.finished:
            status = backend.client().start(spec, held().visitor)
            _own(identity, status.token)
    except RunNotFoundError:
        return _gone(identity, own)
    except BackendUnavailableError as error:
        return Outcome("unavailable", token, error=error)
    if not own and status.state in ("failed", "cancelled"):
        return Outcome("none")
    book().note(identity, status)
    return _of(status)


def _gone(identity: str, own: bool) -> Outcome:
    """The backend forgot the run: only who followed it is told, and until the next try."""
    book().drop(identity)
    _own_tokens().pop(identity, None)
    if not own:
        return Outcome("none")
    _failures()[identity] = RunFailedError(f"{LOST} {backend.death_note()}".strip())
    return Outcome("failed", error=_failures()[identity])


def _of(status: RunStatus) -> Outcome:
    if not status.finished:
        return Outcome("running", status.token, age_s=status.age_s)
    error = status.error.to_exception() if status.error else None
    states: dict[str, State] = {"done": "done", "failed": "failed", "cancelled": "cancelled"}
    return Outcome(states[status.state], status.token, status.result, error, status.reason)


def latest() -> RunSpec | None:
    """What this visit asked for last: the backend runs one thing of a visitor at a time."""
    asked: RunSpec | None = st.session_state.get(_LATEST)
    return asked


def forget(spec: RunSpec) -> None:
    """What the backend has let go of: the next look finds no run, so that it can be asked for again."""
    identity = spec_identity(spec)
    book().drop(identity)
    _own_tokens().pop(identity, None)


def start(spec: RunSpec, prompt: Prompt | None = None, texts: Iterable[str] = ()) -> None:
    """Ask for a run; a refusal is kept and shown by `outcome` until the next try.

    The prompt and further `texts` go first, since a backend that was restarted has forgotten them.
    """
    identity = spec_identity(spec)
    _failures().pop(identity, None)
    try:
        connection = backend.client()
        if prompt is not None:
            _store(prompt)
        for text in texts:
            connection.put_prompt(text, held().visitor)
        status = connection.start(spec, held().visitor)
    except LightTransferError as error:
        _failures()[identity] = error
        return
    st.session_state[_LATEST] = spec
    _own(identity, status.token)
    book().note(identity, status)


def adopt(spec: RunSpec, token: str) -> None:
    """A run of this visit has become the run of another spec."""
    _own(spec_identity(spec), token)


def _own(identity: str, token: str) -> None:
    _own_tokens()[identity] = token
    held().tokens.add(token)


def _store(prompt: Prompt) -> None:
    if prompt.text is not None:
        backend.client().put_prompt(prompt.text, held().visitor)
    else:
        backend.client().get_prompt(prompt.hash)


def _own_tokens() -> dict[str, str]:
    tokens: dict[str, str] = st.session_state.setdefault("own_tokens", {})
    return tokens


def _failures() -> dict[str, LightTransferError]:
    """What went wrong for good with a run of this session, by identity."""
    failures: dict[str, LightTransferError] = st.session_state.setdefault("failures", {})
    return failures
