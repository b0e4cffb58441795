"""One page server with its embedded backend for all browser tests, and one Chromium."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from lighttransfer_core.cost.benchmark import FILE_VARIABLE, processor_name
from tests.made_benchmark import made_benchmark

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
RUN_MS = 240_000

# base-path probing of the page server's own front end on every deep link
_PROBES = re.compile(r"/_stcore/(health|host-config)$")

expect.set_options(timeout=20_000)


class Server:
    """The page server's address and process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self.log = log

    def backend_pid(self) -> int:
        """The embedded backend's process."""
        answer = urllib.request.urlopen(f"{self.url}/api/health", timeout=10).read().decode()
        found = re.search(r'"pid":\s*(\d+)', answer)
        assert found, answer
        return int(found[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory, {"LIGHTTRANSFER_RESULTS": str(tmp_path_factory.mktemp("results"))}) as made:
        yield made


@contextmanager
def serving(folders: pytest.TempPathFactory, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The app, started as a user starts it, until the block ends; a benchmark was run on its machine."""
    port = _free_port()
    log = folders.mktemp("server") / "log.txt"
    measured = log.with_name("bench.json")
    measured.write_text(made_benchmark(processor_name()).to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, "--server.port", str(port)],
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, FILE_VARIABLE: str(measured), **(environment or {})},
        )
        made = Server(port, process, log)
        try:
            _until_healthy(made)
            yield made
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=2).read() == b"ok":
                return
        except (urllib.error.URLError, TimeoutError):
            server.process.poll()
        time.sleep(0.1)
    raise AssertionError(f"the page server did not come up: {server.log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    assert path, "no Chromium: install it, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-quic"])
        yield opened
        opened.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained about."""
    return []


@pytest.fixture
def new_page(browser: Browser, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens a page in a browser context of its own, so as another visitor."""
    contexts: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not _PROBES.search(message.location.get("url", "")):
            complaints.append(f"{message.text} ({message.location.get('url')})")

    def opened(width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            accept_downloads=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    return new_page()


def settled(page: Page) -> None:
    """Waits until the page's script has run and the page is connected."""
    ready = '[data-testid="stApp"][data-test-connection-state="CONNECTED"][data-test-script-state="notRunning"]'
    page.locator(ready).wait_for(timeout=60_000)


def still(page: Page) -> None:
    """A button that is halfway between disabled and enabled has no contrast worth measuring."""
    page.add_style_tag(content="button { transition: none !important }")


def visit(page: Page, server: Server, path: str = "/") -> None:
    page.goto(server.url + path)
    page.get_by_role("heading", level=1).wait_for(timeout=60_000)
    settled(page)


def ready_to_run(page: Page) -> None:
    """Waits until the model has loaded."""
    expect(page.get_by_text("fit", exact=False).filter(has_text="at most")).to_be_visible(timeout=120_000)
    settled(page)
