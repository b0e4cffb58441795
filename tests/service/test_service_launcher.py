from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lighttransfer_core.errors import BackendUnavailableError, InvalidInputError, ServiceError
from lighttransfer_core.service import launcher, server
from lighttransfer_core.service.client import BackendClient, is_loopback
from lighttransfer_core.service.launcher import EmbeddedBackend, RemoteBackend, backend_from_environment, given_token
from lighttransfer_core.service.server import serve
from lighttransfer_core.service.specs import LoadSpec
from tests.service.in_process import WAIT_S

ROOT = Path(__file__).parents[2]

# announces its process id as a port, and ends when its input does
CHILD = """
import os, sys
with open(sys.argv[2] + ".partial", "w") as file:
    file.write(f"http://127.0.0.1:{os.getpid()}")
os.replace(sys.argv[2] + ".partial", sys.argv[2])
sys.stdin.read()
"""


def pid_of(backend: EmbeddedBackend) -> int:
    return int(backend.client(WAIT_S).base_url.rpartition(":")[2])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def embedded(quick_restarts: None) -> Iterator[EmbeddedBackend]:
    backend = EmbeddedBackend([sys.executable, "-c", CHILD])
    yield backend
    backend.stop()


def test_a_child_that_is_killed_is_started_again_and_reported(embedded: EmbeddedBackend) -> None:
    embedded.start()
    first = pid_of(embedded)
    client = embedded.client()
    os.kill(first, signal.SIGKILL)
    assert embedded.wait_for_restart(0, WAIT_S)
    assert (embedded.restarts, embedded.last_exit, embedded.state) == (1, -signal.SIGKILL, "running")
    assert pid_of(embedded) != first
    assert embedded.client() is not client


def test_starting_twice_is_one_child_and_stopping_ends_it(embedded: EmbeddedBackend) -> None:
    embedded.start()
    embedded.start()
    pid = pid_of(embedded)
    assert is_alive(pid)
    embedded.stop()
    assert not is_alive(pid)
    assert (embedded.state, embedded.url, embedded.restarts) == ("stopped", None, 0)
    with pytest.raises(BackendUnavailableError, match="not running"):
        embedded.client()
    embedded.start()
    assert pid_of(embedded) != pid


def test_a_child_that_never_comes_up_is_tried_again_and_said_so(quick_restarts: None) -> None:
    backend = EmbeddedBackend([sys.executable, "-c", "raise SystemExit(3)"])
    backend.start()
    with backend._changed:
        assert backend._changed.wait_for(lambda: backend.restarts >= 2, WAIT_S)
    with pytest.raises(BackendUnavailableError, match=r"died \d+ times, last with status 3"):
        backend.client(timeout_s=0.0)
    backend.stop()
    assert backend.state == "stopped"


def test_the_environment_names_a_remote_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTTRANSFER_BACKEND", raising=False)
    assert isinstance(backend_from_environment(), EmbeddedBackend)
    monkeypatch.setenv("LIGHTTRANSFER_BACKEND", "https://gpu:8765/")
    monkeypatch.setenv("LIGHTTRANSFER_TOKEN", "t")
    remote = backend_from_environment()
    assert isinstance(remote, RemoteBackend)
    assert (remote.url, remote.token, remote.state) == ("https://gpu:8765", "t", "running")
    assert remote.client() is remote.client()
    remote.stop()
    monkeypatch.setenv("LIGHTTRANSFER_BACKEND", "gpu:8765")
    with pytest.raises(InvalidInputError, match="not an address"):
        backend_from_environment()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", ""])
def test_serving_other_machines_without_a_token_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTTRANSFER_TOKEN", raising=False)
    assert not is_loopback(host)
    with pytest.raises(InvalidInputError, match="LIGHTTRANSFER_TOKEN"):
        serve(host, 0)


def test_a_token_of_nothing_but_blanks_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No header could carry it; and blanks around one are the shell's."""
    monkeypatch.setenv("LIGHTTRANSFER_TOKEN", "  \n")
    with pytest.raises(InvalidInputError, match="LIGHTTRANSFER_TOKEN"):
        serve("0.0.0.0", 0)
    monkeypatch.setenv("LIGHTTRANSFER_TOKEN", " t\n")
    assert given_token() == "t"


def test_a_device_that_is_not_here_is_told_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "listen", lambda *_: pytest.fail("served"))
    with pytest.raises(InvalidInputError, match="cuda:77"):
        serve("127.0.0.1", 0, device="cuda:77")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


SERVER = """
import sys
from pathlib import Path
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.server import announce, listen, run
from tests.service.conftest import FakeSide

side = FakeSide()
side.gate.set()
side.stepping = lambda _spec, _step: side.gate.clear()
listening = listen("127.0.0.1", 0)
announce(listening, Path(sys.argv[2]))
run(BackendService(lambda: side), listening, "s3cret", exit_with_stdin=True)
"""


def test_a_served_backend_ends_with_its_parent_even_while_a_stream_is_open() -> None:
    backend = EmbeddedBackend([sys.executable, "-c", SERVER])
    backend.token = "s3cret"
    backend.start()
    url = backend.client(WAIT_S).base_url
    with BackendClient(url) as stranger, pytest.raises(ServiceError, match="bearer"):
        stranger.models()
    with BackendClient(url, "s3cret") as client:
        pid = client.health().pid
        stream = client.events(client.start(LoadSpec("m-2")).token)
        assert next(stream)["step"] == 0
        backend.stop()
        with pytest.raises(BackendUnavailableError):
            list(stream)
    assert not is_alive(pid)


def test_the_real_server_answers_and_ends_in_order(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "lighttransfer_core", "serve", "--port", "0", "--exit-with-stdin"]
    with subprocess.Popen(
        [*command, "--ready-file", str(ready)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stderr is not None
        line = next(line for line in child.stderr if b"listening on" in line).decode()
        with BackendClient(line.split()[-1]) as client:
            assert client.health().pid == child.pid
            assert client.models()[0].name == "smollm2"
            deadline = time.monotonic() + WAIT_S
            while not ready.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert ready.read_text() == client.base_url
        _out, errors = child.communicate(timeout=60)
    assert child.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.parametrize("fails", [False, True])
def test_who_waits_for_a_backend_waits_for_its_imports_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: bool
) -> None:
    ready, imported, announced = tmp_path / "ready", threading.Event(), threading.Event()
    really_announce = server.announce

    def warm_up(_service: object) -> None:
        assert imported.wait(WAIT_S)
        if fails:
            raise ImportError("told to who asks for it")

    def run(_service: object, listening: socket.socket, *_given: object) -> None:
        assert not ready.exists()
        imported.set()
        assert announced.wait(WAIT_S)
        listening.close()

    def announce(listening: socket.socket, file: Path) -> None:
        really_announce(listening, file)
        announced.set()

    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(threading, "excepthook", lambda _what: None)
    for name, function in (("_warm_up", warm_up), ("run", run), ("announce", announce)):
        monkeypatch.setattr(server, name, function)
    serve("127.0.0.1", 0, ready_file=ready)
    assert ready.read_text().startswith("http://127.0.0.1:")


def test_the_page_process_side_imports_neither_torch_nor_fastapi_nor_streamlit() -> None:
    script = """
    import sys
    from lighttransfer_core.service import client, headers, launcher, proxy, specs
    heavy = {"torch", "transformers", "fastapi", "streamlit"} & set(sys.modules)
    sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=True)


def test_the_server_starts_before_torch_is_loaded() -> None:
    script = """
    import sys
    from lighttransfer_core import __main__
    from lighttransfer_core.service import server
    sys.exit("imported torch" if "torch" in sys.modules else 0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=True)


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_looked_for_again_once_everything_is_imported(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    def imported(name: str) -> None:
        assert not gc.isenabled()
        if fails:
            raise ImportError(name)

    frozen: list[bool] = []
    monkeypatch.setattr(server.importlib, "import_module", imported)
    monkeypatch.setattr(server.gc, "freeze", lambda: frozen.append(True))
    service: Any = SimpleNamespace(model_side=None)
    with pytest.raises(ImportError) if fails else nullcontext():
        server._warm_up(service)
    assert gc.isenabled()
    assert len(frozen) == (0 if fails else 1)
