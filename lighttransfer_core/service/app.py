"""The ASGI application of the backend: typed routes over `BackendService`, errors as JSON, events as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import Body, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from lighttransfer_core import errors
from lighttransfer_core.service.access import AccessControl, ClientName, client_of, refusal, refusals
from lighttransfer_core.service.answers import (
    BenchmarkReport,
    Health,
    MemoryReport,
    MetricEntry,
    ModelEntry,
    PromptRef,
    PromptText,
    Tokenized,
    TokenizeRequest,
)
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.book import Ticket
from lighttransfer_core.service.controls import Command
from lighttransfer_core.service.desk import Desk
from lighttransfer_core.service.map_routes import add_map_routes
from lighttransfer_core.service.runs import encode
from lighttransfer_core.service.score_routes import add_score_routes
from lighttransfer_core.service.specs import RunSpec, RunStatus
from lighttransfer_core.service.sweep_routes import add_sweep_routes
from lighttransfer_core.session import Session
from lighttransfer_core.types import ModelSpec
from lighttransfer_core.version import __version__

BATCH_S = 0.05
HEARTBEAT_S = 15

_STATUS: tuple[tuple[type[errors.LightTransferError], int], ...] = (
    (errors.ModelNotLoadedError, 409),
    (errors.ModelNotFoundError, 404),
    (errors.RunNotFoundError, 404),
    (errors.SweepNotFoundError, 404),
    (errors.PrefillGoneError, 410),
    (errors.DoesNotFitError, 413),
    (errors.ModelDoesNotFitError, 413),
    (errors.QueueFullError, 429),
    (errors.RateLimitedError, 429),
    (errors.SharedRunError, 409),
    (errors.ServiceError, 500),
)

AnySpec = Annotated[RunSpec, Field(discriminator="kind")]
Token = Annotated[str, Path(min_length=16, max_length=64)]
Cursor = Annotated[int, Query(ge=0, le=10**9)]


def create_app(service: BackendService, token: str | None = None) -> FastAPI:
    """The application. With a token, every request but /health must carry it. Who made the service closes it."""

    app = FastAPI(
        title="LightTransfer backend",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=refusals(401, 411, 413, 422),
    )
    # the fastest level: a sparse tile shrinks to a tenth in a millisecond
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)
    app.add_middleware(AccessControl, token=token)
    app.add_exception_handler(errors.LightTransferError, _on_typed_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    _add_model_routes(app, service)
    _add_prompt_routes(app, service)
    _add_run_routes(app, service)
    desk = Desk()
    add_map_routes(app, service, desk)
    add_score_routes(app, service, desk)
    add_sweep_routes(app, service)
    return app


def _add_model_routes(app: FastAPI, service: BackendService) -> None:
    @app.get("/health")
    async def health() -> Health:
        return service.health()

    @app.get("/models")
    async def models() -> list[ModelEntry]:
        return service.models()

    @app.get("/models/{name:path}", responses=refusals(404, 409))
    def model_spec(name: Annotated[str, Path(max_length=300)]) -> ModelSpec:
        return service.model_spec(name)

    @app.get("/memory")
    def memory() -> MemoryReport:
        return service.memory()

    @app.get("/benchmark", response_model=BenchmarkReport)
    def benchmark() -> Response:
        return JSONResponse(service.benchmark().to_dict())

    @app.get("/laziness/metrics")
    def laziness_metrics() -> list[MetricEntry]:
        return service.laziness_metrics()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        return PlainTextResponse(service.metrics())


def _add_prompt_routes(app: FastAPI, service: BackendService) -> None:
    @app.post("/prompts", responses=refusals(400, 429))
    async def put_prompt(request: Request, prompt: PromptText, client: ClientName = "") -> PromptRef:
        service.admit(client_of(request, client))
        return PromptRef(service.put_prompt(prompt.text))

    @app.get("/prompts/{prompt}")
    async def get_prompt(prompt: Annotated[str, Path(min_length=64, max_length=64)]) -> PromptText:
        return PromptText(service.get_prompt(prompt))

    @app.post("/tokenize", responses=refusals(400, 409))
    def tokenize(request: TokenizeRequest) -> Tokenized:
        return service.tokenize(request)


def _add_run_routes(app: FastAPI, service: BackendService) -> None:
    @app.post("/runs", responses=refusals(400, 404, 429))
    def start(request: Request, spec: Annotated[AnySpec, Body()], client: ClientName = "") -> RunStatus:
        service.admit(client_of(request, client))
        return service.start(spec, client)

    @app.get("/runs/{token}", response_model=RunStatus, responses=refusals(404))
    async def status(token: Token, peek: bool = False) -> Response:
        # the result was made JSON once already; validating it again would cost more than sending it
        return JSONResponse(service.find(token, peek).status().to_dict())

    @app.delete("/runs/{token}", status_code=204, responses=refusals(404))
    async def cancel(token: Token) -> None:
        service.cancel(token)

    @app.post("/runs/{token}/leave", status_code=204, responses=refusals(404))
    async def leave(token: Token) -> None:
        service.leave(token)

    @app.post("/runs/{token}/commands", status_code=204, responses=refusals(400, 404, 409, 429))
    def command(request: Request, token: Token, wanted: Command, client: ClientName = "") -> None:
        service.admit(client_of(request, client))
        service.command(token, wanted)

    @app.get("/runs/{token}/session", response_model=Session, responses=refusals(404))
    def session(token: Token) -> Response:
        return JSONResponse(service.session(token).to_dict())

    @app.get(
        "/runs/{token}/events",
        response_class=EventSourceResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **refusals(404)},
    )
    async def events(token: Token, after: Cursor = 0, last_event_id: Annotated[str, Header()] = "") -> Response:
        # a browser that reconnects sends the cursor it has seen, which is later than the one in the address
        cursor = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 10 else after
        return EventSourceResponse(event_stream(service.find(token), cursor), ping=HEARTBEAT_S)


async def event_stream(ticket: Ticket, after: int) -> AsyncIterator[bytes]:
    """The events of a run past a cursor, batched, to the last one."""
    with ticket.run.reader() as reader, ticket.watched():
        while True:
            news, ended = ticket.run.read(after, reader)
            if ticket.cancelled:
                yield _encoded(after, [encode({"kind": "cancelled", "reason": ticket.reason})])
                return
            if news:
                yield _encoded(after, news)
                after += len(news)
            if ended:
                return
            if news:  # what happens meanwhile goes together; a lone event waits for nothing
                await anyio.sleep(BATCH_S)
            else:
                await reader.wait()


def _encoded(after: int, events: list[str]) -> bytes:
    return "".join(f"id: {cursor}\r\ndata: {text}\r\n\r\n" for cursor, text in enumerate(events, after + 1)).encode()


async def _on_typed_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.LightTransferError)
    return refusal(next((status for kind, status in _STATUS if isinstance(error, kind)), 422), error)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, errors.LightTransferError):
        return refusal(422, cause)
    where = ".".join(str(part) for part in first["loc"])
    return refusal(422, errors.InvalidInputError(f"{where}: {first['msg']}"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, errors.ServiceError(f"{request.method} {request.url.path}: {error.detail}"))
