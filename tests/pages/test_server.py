from __future__ import annotations

import asyncio
import gc
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
import streamlit as st
from starlette.applications import Starlette

from lighttransfer_core.service.headers import content_security_policy, inline_script_hashes
from lighttransfer_core.service.launcher import EmbeddedBackend
from pages.parts import server
from pages.parts.server import answer_at_once, settle
from tests.service.in_process import serving

CONFIG = Path(__file__).resolve().parents[2] / ".streamlit" / "config.toml"


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    """Asks the page server's own routes, whose backend was never started."""
    monkeypatch.setattr(server, "backend", lambda: EmbeddedBackend(["nothing"]))
    server._proxy.clear()
    app = Starlette(routes=server.routes(), middleware=server.middleware())
    with serving(app) as transport:
        with httpx2.Client(base_url="http://page", transport=transport) as client:
            yield client
        transport.run(server._proxy().aclose())
    server._proxy.clear()


@pytest.mark.parametrize(
    "path", ["/modules/map/map.js", "/modules/live/panel.js", "/modules/heap/replay.js", server.LIBRARY_URL]
)
def test_scripts_come_with_their_type_and_the_policy(browser: httpx2.Client, path: str) -> None:
    answer = browser.get(path)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    index = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    hashes = inline_script_hashes(index)
    assert hashes, "without them the pages' own index would not start"
    assert answer.headers["content-security-policy"] == content_security_policy(hashes)
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/modules/components/chart.js",
        "/modules/./map.js",
        "/modules/../app.js",
        "/modules/map/..%2flive%2fpanel.js",
        "/modules/map/%2e%2e/live/panel.js",
        "/modules/..%2f..%2fassets%2fmap/map.js",
        "/modules/map/..%5clive%5cpanel.js",
        "/modules/map/%2fetc%2fpasswd.js",
        "/modules/map//map.js",
        "/modules/map/map.js%00.js",
        "/modules/map/%00.js",
        "/modules/map/.js",
        "/modules/map/map",
        "/modules/map/MAP.js",
        f"/modules/map/{'x' * 300}.js",
        f"/modules/{'x' * 300}/map.js",
    ],
)
def test_only_the_components_modules_are_given_out(browser: httpx2.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert answer.headers["x-content-type-options"] == "nosniff", "a refusal carries the headers too"


def test_a_module_is_read_only(browser: httpx2.Client) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert browser.request(method, "/modules/map/map.js").status_code == 405


def test_the_pages_show_no_tracebacks_and_are_served_to_this_machine_only() -> None:
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    assert config["client"]["showErrorDetails"] == "none"
    assert config["server"]["address"] == "127.0.0.1"
    assert config["server"]["maxUploadSize"] == 16
    assert config["browser"]["gatherUsageStats"] is False
    guards = {"enableXsrfProtection", "enableCORS", "enableStaticServing", "trustedUserHeaders"}
    assert not guards & config["server"].keys(), "their defaults are the strict ones"


def test_what_every_page_uses_is_not_walked_by_each_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "head_start_s", lambda: 0.0)
    gc.unfreeze()  # what the tests' own session has frozen
    try:
        settle()
        assert {"viz.laziness", "pandas"} <= set(sys.modules)
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    finally:
        gc.freeze()


def test_listening_sockets_answer_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as other:
        assert answer_at_once() >= 1
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not other.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "connections inherit it"


@pytest.mark.parametrize(("cores", "wait_s"), [(2, server._HEAD_START_S), (16, 0.0)])
def test_tables_are_loaded_once_the_first_page_had_its_time(
    cores: int, wait_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(server, "_load", done.append)
    monkeypatch.setattr("time.sleep", done.append)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)), raising=False)
    settle()
    assert done == [server._PAGE_MODULES, wait_s, server._TABLE_MODULES]


@pytest.mark.parametrize(("cores", "at_once"), [(2, False), (16, True)])
def test_the_backend_waits_for_the_first_page_on_few_cores_only(
    cores: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(server, "backend", lambda: SimpleNamespace(start=lambda: started.append(True)))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)), raising=False)

    async def wait() -> float:
        starting = server.start_backend()
        await asyncio.sleep(0.05)
        starting.cancel()
        return starting.when() - asyncio.get_running_loop().time()

    left_s = asyncio.run(wait())
    assert bool(started) == at_once
    assert at_once or 0 < left_s <= server._HEAD_START_S
