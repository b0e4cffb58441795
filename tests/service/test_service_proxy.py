from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx2
import pytest
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lighttransfer_core.service.app import create_app
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.headers import SecurityHeaders, content_security_policy, inline_script_hashes
from lighttransfer_core.service.launcher import BackendState
from lighttransfer_core.service.proxy import ApiProxy
from tests.service.conftest import FakeSide, load
from tests.service.in_process import WAIT_S, AsyncInProcessTransport, InProcessTransport, serving


@dataclass
class StubBackend:
    """A backend at a known place."""

    url: str | None = "http://upstream:1234"
    token: str | None = "s3cret"
    state: BackendState = "running"
    restarts: int = 0
    last_exit: int | None = None
    starts: int = 0

    def start(self) -> None:
        self.starts += 1

    def stop(self) -> None: ...


async def echo(request: Request) -> Response:
    body = (await request.body()).decode()
    facts = {"path": request.url.path, "query": request.url.query, "body": body, "headers": dict(request.headers)}
    return JSONResponse(facts, headers={"ETag": "x", "Set-Cookie": "secret=1", "Cache-Control": "immutable"})


async def failing(_request: Request) -> Response:
    return PlainTextResponse("no", status_code=418)


async def endless(_request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"id: 1\r\ndata: {}\r\n\r\n"
        yield b"id: 2\r\ndata: {}\r\n\r\n"
        await asyncio.Event().wait()

    return EventSourceResponse(events())


async def dying(_request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"id: 1\r\ndata: {}\r\n\r\n"
        raise RuntimeError("killed")

    return EventSourceResponse(events())


async def silent(_request: Request) -> Response:
    """Answers once its reader has gone, so to nobody."""
    while not await _request.is_disconnected():
        await asyncio.sleep(0.01)
    return PlainTextResponse("too late")


@pytest.fixture
def backend() -> StubBackend:
    return StubBackend()


@pytest.fixture
def upstream() -> AsyncInProcessTransport:
    methods = ["GET", "POST", "DELETE"]
    routes = [
        Route("/endless", endless),
        Route("/dying", dying),
        Route("/silent", silent),
        Route("/failing", failing),
        Route("/{path:path}", echo, methods=methods),
    ]
    return AsyncInProcessTransport(Starlette(routes=routes))


@pytest.fixture
def page_server(backend: StubBackend, upstream: httpx2.AsyncBaseTransport) -> Iterator[InProcessTransport]:
    proxy = ApiProxy(backend, upstream)
    app = Starlette(routes=proxy.routes, middleware=[Middleware(SecurityHeaders, script_hashes=("'sha256-abc'",))])
    with serving(app) as transport:
        yield transport
        transport.run(proxy.aclose())


@pytest.fixture
def browser(page_server: InProcessTransport) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url="http://page", transport=page_server) as client:
        yield client


def test_a_request_arrives_whole_with_the_token_and_without_cookies(browser: httpx2.Client) -> None:
    got = browser.post("/api/a/b%20c?x=1&x=2", json={"n": 1}, headers={"Cookie": "k=v", "Last-Event-ID": "7"})
    sent = got.json()
    assert (sent["path"], sent["query"], sent["body"]) == ("/a/b c", "x=1&x=2", '{"n":1}')
    assert sent["headers"]["authorization"] == "Bearer s3cret"
    assert sent["headers"]["last-event-id"] == "7"
    assert "cookie" not in sent["headers"]
    assert sent["headers"]["content-length"] == "7"


def test_an_answer_comes_back_with_its_status_and_without_cookies(browser: httpx2.Client) -> None:
    got = browser.get("/api/x")
    assert (got.headers["etag"], got.headers["cache-control"]) == ("x", "immutable")
    assert "set-cookie" not in got.headers
    refused = browser.get("/api/failing")
    assert (refused.status_code, refused.text) == (418, "no")


def test_a_stream_passes_piece_by_piece_and_is_closed_upstream_when_the_reader_leaves(
    browser: httpx2.Client, upstream: AsyncInProcessTransport
) -> None:
    with browser.stream("GET", "/api/endless") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = iter(httpx2.EventSource(stream))
        assert [next(events).id, next(events).id] == ["1", "2"]
        assert not upstream.disconnected.is_set()
    assert upstream.disconnected.wait(WAIT_S)


def test_a_stream_ends_where_a_killed_backend_ended_it(browser: httpx2.Client) -> None:
    with browser.stream("GET", "/api/dying") as stream:
        assert [event.id for event in httpx2.EventSource(stream)] == ["1"]


def test_a_reader_who_leaves_before_the_answer_is_passed_on(
    page_server: InProcessTransport, upstream: AsyncInProcessTransport
) -> None:
    asked = httpx2.Request("GET", "http://page/api/silent")
    waiting = asyncio.run_coroutine_threadsafe(page_server._inner.handle_async_request(asked), page_server._loop)
    while not upstream.requests:
        assert not waiting.done()
    assert not upstream.disconnected.is_set()
    waiting.cancel()
    assert upstream.disconnected.wait(WAIT_S)


def test_another_site_may_not_change_anything(browser: httpx2.Client, upstream: AsyncInProcessTransport) -> None:
    refused = browser.post("/api/runs", json={}, headers={"Origin": "https://elsewhere"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "ServiceError")
    assert upstream.requests == []
    assert browser.post("/api/runs", json={}, headers={"Origin": "http://page"}).status_code == 200
    assert browser.put("/api/runs", json={}).status_code == 405


def test_a_backend_that_is_not_up_is_a_typed_error(browser: httpx2.Client, backend: StubBackend) -> None:
    backend.url = None
    got = browser.get("/api/health")
    assert (got.status_code, got.json()["error"]["type"]) == (503, "BackendUnavailableError")


def test_a_backend_that_died_is_a_typed_error_and_not_up() -> None:
    proxy = ApiProxy(StubBackend(url="http://127.0.0.1:1"))
    with serving(Starlette(routes=proxy.routes)) as transport:
        with httpx2.Client(base_url="http://page", transport=transport) as client:
            got, told = client.get("/api/health"), client.get("/backend")
        transport.run(proxy.aclose())
    assert (got.status_code, got.json()["error"]["type"]) == (503, "BackendUnavailableError")
    assert (told.status_code, told.json()) == (200, {"up": False})


def test_whether_a_backend_is_up_is_told_without_an_error(browser: httpx2.Client, backend: StubBackend) -> None:
    assert browser.get("/backend").json() == {"up": True}
    assert backend.starts == 1, "who asks wants it, started or not"
    backend.url = None
    told = browser.get("/backend")
    assert (told.status_code, told.json()) == (200, {"up": False})


def test_a_run_is_started_followed_and_cancelled_through_the_proxy(service: BackendService, side: FakeSide) -> None:
    proxy = ApiProxy(StubBackend(token="t"), AsyncInProcessTransport(create_app(service, "t")))
    with serving(Starlette(routes=proxy.routes)) as page:
        with BackendClient("http://page/api", transport=page) as client:
            token = client.start(load("m-3")).token
            assert [event["kind"] for event in client.events(token, after=2)] == ["step", "done"]
            side.gate.clear()
            token = client.start(load("m-4")).token
            client.cancel(token)
            assert client.status(token).state == "cancelled"
        page.run(proxy.aclose())


def test_every_answer_carries_the_security_headers(browser: httpx2.Client) -> None:
    headers = browser.get("/api/x").headers
    assert headers["content-security-policy"] == content_security_policy(["'sha256-abc'"])
    assert "script-src 'self' blob: 'sha256-abc';" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_inline_scripts_are_allowed_by_their_hash() -> None:
    # printf 'alert(1)' | openssl dgst -sha256 -binary | base64
    html = "<html><script>alert(1)</script><script src='x.js'></script></html>"
    assert inline_script_hashes(html) == ("'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='",)
