"""The app as people run it, for measurements from outside: the page server, and the embedded backend as its child or
another one beside it.

Every client has a loopback address of its own, as clients of a network have: limits are counted by address.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from lighttransfer_core.errors import LightTransferError
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.launcher import BACKEND_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
_START_S = 90.0
_HOSTS = 250


@dataclass(frozen=True)
class RunningApp:
    """The page server's address and process; the log is of both processes."""

    url: str
    process: psutil.Process
    log: Path

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    def client(self, number: int = 1, transport: httpx2.BaseTransport | None = None) -> BackendClient:
        """A typed client over the page server's /api, from an address of its own."""
        return BackendClient(self.api, transport=transport or address(number), timeout_s=120.0)

    def backend(self) -> psutil.Process:
        with self.client() as client:
            return psutil.Process(client.health().pid)

    def page_cpu_s(self) -> float:
        """Processor seconds of the page server so far, without the backend's."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def gauges(self) -> dict[str, float]:
        """Every sample of /metrics, by its name with its labels."""
        text = httpx2.get(f"{self.api}/metrics", timeout=60.0, trust_env=False).text
        return {name: float(value) for name, value in re.findall(r"^lighttransfer_(\S+) (\S+)$", text, re.MULTILINE)}


def address(number: int) -> httpx2.HTTPTransport:
    """Connections from one of the loopback addresses."""
    low = number % (_HOSTS * _HOSTS)
    return httpx2.HTTPTransport(local_address=f"127.0.{1 + low // _HOSTS}.{1 + low % _HOSTS}")


@contextmanager
def running_app(backend: str | None = None) -> Iterator[RunningApp]:
    """Starts the app on a free port, waits until its backend answers, and ends both afterwards.

    `backend` is the module of a backend of another kind, which takes `--port`; None: the app starts its own.
    """
    with started_app(backend) as app:
        _until_up(app)
        yield app


@contextmanager
def started_app(backend: str | None = None, script: str = "app.py") -> Iterator[RunningApp]:
    """`running_app`, as soon as its processes have been started; or another script of Streamlit, in the same way."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        log = Path(folder) / "log.txt"
        if backend is not None:
            port = _free_port()
            processes.enter_context(_process(["-m", backend, "--port", str(port)], environment, log))
            environment[BACKEND_VARIABLE] = f"http://127.0.0.1:{port}"
        port = _free_port()
        command = ["-m", "streamlit", "run", script, "--server.headless", "true", "--server.port", str(port)]
        process = processes.enter_context(_process(command, environment, log))
        yield RunningApp(f"http://127.0.0.1:{port}", psutil.Process(process.pid), log)


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that adds to the log, ended with the block."""
    with log.open("ab") as sink:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=sink, stderr=sink, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_up(app: RunningApp) -> None:
    deadline = time.monotonic() + _START_S
    with app.client() as client:
        while True:
            try:
                client.health()
                return
            except LightTransferError:
                if time.monotonic() > deadline or not app.process.is_running():
                    raise RuntimeError(f"the app did not come up:\n{app.log.read_text()}") from None
                time.sleep(0.1)
