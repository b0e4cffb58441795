"""The page process's one backend, and short questions to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from lighttransfer_core.errors import BackendUnavailableError, LightTransferError
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.launcher import Backend, backend_from_environment

Answer = TypeVar("Answer")

_PATIENCE_S = 0.0


# A plain module global would be made anew when the module is reloaded, and with it a second child process.
@st.cache_resource(show_spinner=False)
def backend() -> Backend:
    """The backend of this process, made once; the page server starts and stops it."""
    return backend_from_environment()


def client() -> BackendClient:
    """The client, if the backend is up now; raises BackendUnavailableError otherwise."""
    return backend().client(timeout_s=_PATIENCE_S)


def ask(question: Callable[[BackendClient], Answer]) -> Answer | LightTransferError:
    """An answer, or the error that stands in its place; for facts that a page can do without."""
    try:
        return question(client())
    except LightTransferError as error:
        return error


def is_up() -> bool:
    """Whether the backend answers."""
    return not isinstance(ask(lambda backend_client: backend_client.health()), BackendUnavailableError)


def death_note() -> str:
    """A sentence on the embedded backend's last death, or nothing."""
    known = backend()
    if not known.restarts:
        return ""
    status = "" if known.last_exit is None else f" (exit status {known.last_exit})"
    return f"The backend process ended unexpectedly{status} and was started again."
