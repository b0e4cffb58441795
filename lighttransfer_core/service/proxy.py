"""One port and one origin: the page server forwards /api/... to the backend, event streams included.

The bearer token is added here, so that it never reaches a browser. It knows neither torch nor streamlit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from urllib.parse import quote, urlsplit

import anyio
import httpx2
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lighttransfer_core.errors import BackendUnavailableError, LightTransferError, ServiceError
from lighttransfer_core.service.launcher import Backend
from lighttransfer_core.service.specs import ADDRESS_HEADER, ErrorRecord

METHODS = ("GET", "POST", "DELETE")
_SAFE_METHODS = ("GET", "HEAD")
_REQUEST_HEADERS = ("accept", "accept-encoding", "content-type", "content-length", "last-event-id", "if-none-match")
_RESPONSE_HEADERS = ("content-type", "content-length", "content-encoding", "cache-control", "etag", "retry-after")
_GONE = 499
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)


class ApiProxy:
    """Forwards to wherever the backend is at that moment.

    Parameters
    ----------
    backend
        Its `url` and `token` are read anew for each request, so a restarted backend is found.
    transport
        For tests: an in-process transport instead of the network.
    """

    def __init__(self, backend: Backend, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._backend = backend
        self._http = httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT, trust_env=False)

    @property
    def routes(self) -> list[Route]:
        """To be mounted by the page server."""
        return [Route("/api/{path:path}", self.forward, methods=list(METHODS)), Route("/backend", self.up)]

    async def aclose(self) -> None:
        """To be called when the page server ends."""
        await self._http.aclose()

    async def forward(self, request: Request) -> Response:
        if request.method not in _SAFE_METHODS and not _same_origin(request):
            return _refusal(403, ServiceError("This request comes from another site, so it is refused."))
        url = self._backend.url
        if url is None:
            return _refusal(503, BackendUnavailableError("The backend is starting; try again in a moment."))
        try:
            upstream = await self._send(request, url)
        except httpx2.TransportError as error:
            return _refusal(503, BackendUnavailableError(f"The backend does not answer ({type(error).__name__})."))
        return _response(upstream) if upstream is not None else Response(status_code=_GONE)

    async def up(self, _request: Request) -> Response:
        """Whether the backend answers: a fact, where an error would stand in the browser's console at each asking.

        Who asks wants it, so it is started where it has not been.
        """
        self._backend.start()
        url, answers = self._backend.url, False
        if url is not None:
            with suppress(httpx2.TransportError):
                answers = (await self._http.get(f"{url}/health")).is_success
        return JSONResponse({"up": answers})

    async def _send(self, request: Request, url: str) -> httpx2.Response | None:
        """The backend's answer; None where the reader has left before it came, so that the backend can stop too."""
        sending = asyncio.create_task(self._http.send(self._request(request, url), stream=True))
        if _has_body(request):
            return await sending
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            return await sending if sending.done() else None
        finally:
            leaving.cancel()
            sending.cancel()

    def _request(self, request: Request, url: str) -> httpx2.Request:
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        if request.client is not None:
            headers[ADDRESS_HEADER] = request.client.host
        if self._backend.token:
            headers["authorization"] = f"Bearer {self._backend.token}"
        return self._http.build_request(
            request.method,
            f"{url}/{quote(request.path_params['path'])}?{request.url.query}".rstrip("?"),
            headers=headers,
            content=request.stream() if _has_body(request) else None,
        )


async def _left(request: Request) -> None:
    """Returns once the reader has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _has_body(request: Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers


def _same_origin(request: Request) -> bool:
    """Browsers name the origin with every request that changes something; other programs name none."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _refusal(status: int, error: LightTransferError) -> Response:
    return JSONResponse({"error": ErrorRecord.of(error).to_dict()}, status_code=status)


def _response(upstream: httpx2.Response) -> Response:
    headers = {name: upstream.headers[name] for name in _RESPONSE_HEADERS if name in upstream.headers}
    if headers.get("content-type", "").startswith("text/event-stream"):
        # no heartbeats of our own: the backend's pass through, and ours could fall inside an event
        return EventSourceResponse(_events(upstream), status_code=upstream.status_code, ping=0)
    return StreamingResponse(_body(upstream), status_code=upstream.status_code, headers=headers)


async def _events(upstream: httpx2.Response) -> AsyncIterator[bytes]:
    """Ends where the backend ends: the reader comes back and is told why, or is given a new backend's events."""
    with suppress(httpx2.TransportError):
        async with aclosing(_body(upstream)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _body(upstream: httpx2.Response) -> AsyncGenerator[bytes]:
    try:
        async for chunk in upstream.aiter_raw():
            yield chunk
    finally:
        # a reader that went away cancels this task; closing upstream must still happen
        with anyio.CancelScope(shield=True):
            await upstream.aclose()
