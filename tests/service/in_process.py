"""Transports that run an ASGI application in this process, streaming and disconnecting as a network would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2

WAIT_S = 30.0
Answer = TypeVar("Answer")


class AsyncInProcessTransport(httpx2.AsyncBaseTransport):
    """Sends requests to an ASGI application in the loop that it is used in.

    `disconnected` is set once a client has left before the end of an answer and the application has noticed.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.disconnected = threading.Event()
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        body = await request.aread()
        messages: asyncio.Queue[Any] = asyncio.Queue()
        left = asyncio.Event()
        inputs = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            if (message := next(inputs, None)) is not None:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def serve() -> None:
            try:
                await self.app(_scope(request), receive, messages.put)
            except Exception as error:
                await messages.put(error)
            finally:
                if left.is_set():
                    self.disconnected.set()
            await messages.put(None)

        task = asyncio.create_task(serve())
        try:
            start = await messages.get()
        except asyncio.CancelledError:
            left.set()  # the client hangs up before the answer
            raise
        if isinstance(start, Exception):
            raise start
        assert start is not None
        stream = _Body(messages, task, left)
        return httpx2.Response(start["status"], headers=start["headers"], stream=stream)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, messages: asyncio.Queue[Any], task: asyncio.Task[None], left: asyncio.Event) -> None:
        self._messages, self._task, self._left = messages, task, left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._messages.get()
            if isinstance(message, Exception):
                raise httpx2.ReadError(str(message))
            if message is None:
                return
            if message["body"]:
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        self._left.set()
        await self._task


@contextmanager
def serving(app: Any) -> Iterator[InProcessTransport]:
    """A transport to the application while it is served by a thread with an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="in-process-app")
    thread.start()
    try:
        yield InProcessTransport(AsyncInProcessTransport(app), loop)
    finally:
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


class InProcessTransport(httpx2.BaseTransport):
    """The same for a client that is not async."""

    def __init__(self, inner: AsyncInProcessTransport, loop: asyncio.AbstractEventLoop) -> None:
        self.disconnected = inner.disconnected
        self._inner, self._loop = inner, loop

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        copy = httpx2.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = self.run(self._inner.handle_async_request(copy))
        assert isinstance(response.stream, _Body)
        return httpx2.Response(response.status_code, headers=response.headers, stream=_SyncBody(self, response.stream))


class _SyncBody(httpx2.SyncByteStream):
    def __init__(self, transport: InProcessTransport, body: _Body) -> None:
        self._transport, self._body = transport, body
        self._chunks = aiter(body)

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._transport.run(self._next())) is not None:
            yield chunk

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)

    def close(self) -> None:
        self._transport.run(self._body.aclose())


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _scope(request: httpx2.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "server": ("backend", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
