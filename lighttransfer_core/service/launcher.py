"""Where the backend is: a child process of this one, or an address in the environment.

`LIGHTTRANSFER_BACKEND` (a URL) and `LIGHTTRANSFER_TOKEN` point at a remote backend; without them an embedded one is
started on loopback, watched, and started again if it dies. It knows neither torch nor streamlit.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from lighttransfer_core.errors import BackendUnavailableError, InvalidInputError
from lighttransfer_core.service.client import BackendClient

BACKEND_VARIABLE = "LIGHTTRANSFER_BACKEND"
TOKEN_VARIABLE = "LIGHTTRANSFER_TOKEN"

BackendState = Literal["starting", "running", "restarting", "stopped"]

_SERVE = (
    *(sys.executable, "-m", "lighttransfer_core", "serve"),
    *("--host", "127.0.0.1", "--port", "0", "--exit-with-stdin"),
)
_LOG = logging.getLogger("lighttransfer.launcher")
_POLL_S = 0.05
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_STOP_S = 5.0


class Backend(Protocol):
    """What the pages need of a backend, wherever it runs."""

    restarts: int
    last_exit: int | None

    @property
    def state(self) -> BackendState: ...

    @property
    def url(self) -> str | None:
        """The address, or None while it has none."""

    @property
    def token(self) -> str | None:
        """The bearer token to send."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def client(self, timeout_s: float = 30.0) -> BackendClient:
        """A shared client, once the backend answers; raises BackendUnavailableError after `timeout_s` seconds."""


def given_token() -> str | None:
    """The environment's bearer token; blanks around it are no part of it, since no header carries them."""
    return os.environ.get(TOKEN_VARIABLE, "").strip() or None


def backend_from_environment() -> Backend:
    """The backend that the environment names, or an embedded one; not started yet."""
    url = os.environ.get(BACKEND_VARIABLE, "").strip()
    if not url:
        return EmbeddedBackend()
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInputError(
            f"{BACKEND_VARIABLE}={url!r} is not an address: give one like https://gpu-machine:8765."
        )
    return RemoteBackend(url, given_token())


class RemoteBackend:
    """A backend that someone else runs."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url: str | None = url.rstrip("/")
        self.token = token
        self.restarts = 0
        self.last_exit: int | None = None
        self.state: BackendState = "running"
        self._client = BackendClient(url, token)

    def start(self) -> None:
        """Nothing to start: it runs elsewhere."""

    def stop(self) -> None:
        self._client.close()

    def client(self, timeout_s: float = 30.0) -> BackendClient:
        return self._client


class EmbeddedBackend:
    """A backend as a child of this process: it ends with this process, and is started again whenever it dies.

    Parameters
    ----------
    command
        What to run instead of `python -m lighttransfer_core serve ...`; `--ready-file PATH` is added to it.

    Attributes
    ----------
    restarts
        How often it died and was started again.
    last_exit
        The exit status of the last child that died (negative: the signal that killed it), or None.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self.token: str | None = secrets.token_urlsafe(32)
        self.url: str | None = None
        self.restarts = 0
        self.last_exit: int | None = None
        self.state: BackendState = "stopped"
        self._command = tuple(command or _SERVE)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._client: BackendClient | None = None

    def start(self) -> None:
        """Start the child and the thread that watches it; returns at once, and does nothing the second time."""
        with self._changed:
            if self._watcher is not None:
                return
            self._stopping.clear()
            self._set_state("starting")
            self._watcher = threading.Thread(target=self._watch, name="backend-watcher", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """End the child and wait until it is gone."""
        self._stopping.set()
        with self._changed:
            watcher, child = self._watcher, self._child
        if child is not None:
            _end(child)
        if watcher is not None:
            watcher.join()
        with self._changed:
            self._watcher = None
            self._forget_client()
            self._set_state("stopped")

    def client(self, timeout_s: float = 30.0) -> BackendClient:
        """The client of the child that runs now; raises BackendUnavailableError if none is up in time."""
        with self._changed:
            self._changed.wait_for(lambda: self.url is not None or self.state == "stopped", timeout_s)
            if self.url is None:
                raise BackendUnavailableError(self._why_unavailable(timeout_s))
            if self._client is None:
                self._client = BackendClient(self.url, self.token)
            return self._client

    def wait_for_restart(self, restarts: int, timeout_s: float = 30.0) -> bool:
        """Wait until more than `restarts` restarts have happened and the backend answers again."""
        with self._changed:
            return self._changed.wait_for(lambda: self.restarts > restarts and self.state == "running", timeout_s)

    def _why_unavailable(self, timeout_s: float) -> str:
        if self.state == "stopped":
            return "The embedded backend is not running."
        died = f" It died {self.restarts} times, last with status {self.last_exit}." if self.restarts else ""
        return f"The embedded backend did not come up in {timeout_s:g} seconds.{died} Its log says why."

    def _watch(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            was_ready = self._run_child()
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE_S if was_ready else min(2 * pause, _LONGEST_PAUSE_S)
            _LOG.warning("the backend ended with status %s; starting it again", self.last_exit)
            self._stopping.wait(pause)

    def _run_child(self) -> bool:
        """One child from start to end; whether it ever answered."""
        with tempfile.TemporaryDirectory(prefix="lighttransfer-") as folder:
            ready_file = Path(folder) / "ready"
            with subprocess.Popen(
                [*self._command, "--ready-file", str(ready_file)],
                stdin=subprocess.PIPE,
                env=_child_environment(self.token),
                start_new_session=True,  # Ctrl-C is for this process; the child ends when its input does
            ) as child:
                with self._changed:
                    self._child = child
                if self._stopping.is_set():
                    _end(child)
                was_ready = self._wait_ready(child, ready_file)
                child.wait()
        with self._changed:
            self._child = None
            self._forget_client()
            if not self._stopping.is_set():
                self.last_exit = child.returncode
                self.restarts += 1
                self._set_state("restarting")
        return was_ready

    def _wait_ready(self, child: subprocess.Popen[bytes], ready_file: Path) -> bool:
        while child.poll() is None:
            if ready_file.exists():
                with self._changed:
                    self.url = ready_file.read_text(encoding="utf-8").strip()
                    self._set_state("running")
                return True
            try:
                child.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
        return False

    def _forget_client(self) -> None:
        self.url = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _set_state(self, state: BackendState) -> None:
        self.state = state
        self._changed.notify_all()


def _child_environment(token: str | None) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), TOKEN_VARIABLE: token or ""}


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
