"""Runs as the pages see them: which recipe has one, how it stands, and its result.

Addresses hold recipes, never tokens. The book maps a recipe's identity to the token of a run that this page process
has seen, so that a reload, a second tab or another visitor finds it; each session asks for its own token before it
follows or cancels one. Results are plain JSON; no tensor comes here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

import streamlit as st

from lighttransfer_core.errors import BackendUnavailableError, LightTransferError, RunNotFoundError
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec, RunSpec, RunStatus, spec_identity
from pages.parts import backend
from pages.parts.prompts import Prompt

State = Literal["none", "running", "done", "failed", "cancelled", "lost", "unavailable"]

_BOOK_SIZE: Final = 64


@dataclass
class Entry:
    """A run that was seen: its token, whether it was under way when last looked at, its result once it has one."""

    token: str
    under_way: bool
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
            self._entries[identity] = Entry(status.token, not status.finished, status.result)
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


def outcome(spec: RunSpec) -> Outcome:
    """How the run of a spec stands, without starting one."""
    identity = spec_identity(spec)
    refused = _refusals().get(identity)
    if refused is not None:
        return Outcome("failed", error=refused)
    entry = book().get(identity)
    if entry is None:
        return Outcome("none")
    if entry.result is not None:
        return Outcome("done", entry.token, entry.result)
    return _ask(spec, identity, entry)


def _ask(spec: RunSpec, identity: str, entry: Entry) -> Outcome:
    own = _own_tokens().get(identity)
    try:
        status = backend.client().status(own or entry.token)
        if own is None and not status.finished:
            status = backend.client().start(spec)
            _own_tokens()[identity] = status.token
    except RunNotFoundError:
        book().drop(identity)
        _own_tokens().pop(identity, None)
        return Outcome("lost" if entry.under_way else "none")
    except BackendUnavailableError as error:
        return Outcome("unavailable", entry.token, error=error)
    if own is None and status.state in ("failed", "cancelled"):
        return Outcome("none")
    book().note(identity, status)
    return _of(status)


def _of(status: RunStatus) -> Outcome:
    if not status.finished:
        return Outcome("running", status.token)
    error = status.error.to_exception() if status.error else None
    states: dict[str, State] = {"done": "done", "failed": "failed", "cancelled": "cancelled"}
    return Outcome(states[status.state], status.token, status.result, error)


def start(spec: RunSpec, prompt: Prompt | None = None) -> None:
    """Ask for a run; a refusal is kept and shown by `outcome` until the next try.

    The prompt's text goes first, since a backend that was restarted has forgotten it.
    """
    identity = spec_identity(spec)
    _refusals().pop(identity, None)
    try:
        connection = backend.client()
        if prompt is not None and isinstance(spec, PrefillSpec | CompareSpec):
            _store(prompt)
        status = connection.start(spec)
    except LightTransferError as error:
        _refusals()[identity] = error
        return
    _own_tokens()[identity] = status.token
    book().note(identity, status)


def _store(prompt: Prompt) -> None:
    if prompt.text is not None:
        backend.client().put_prompt(prompt.text)
    else:
        backend.client().get_prompt(prompt.hash)


def _own_tokens() -> dict[str, str]:
    tokens: dict[str, str] = st.session_state.setdefault("own_tokens", {})
    return tokens


def _refusals() -> dict[str, LightTransferError]:
    refusals: dict[str, LightTransferError] = st.session_state.setdefault("refusals", {})
    return refusals
