"""The routes of attention maps: everything about one finished prefill run, computed off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, Path, Query, Request, Response

from lighttransfer_core.maps.view import View
from lighttransfer_core.service.access import refusals
from lighttransfer_core.service.answers import HeadFacts, MapFacts
from lighttransfer_core.service.backend import BackendService
from lighttransfer_core.service.desk import Desk
from lighttransfer_core.types import Window

if TYPE_CHECKING:
    from lighttransfer_core.service.maps import PromptMap

_KEEP = {"Cache-Control": "private, max-age=3600, immutable"}

_REFUSALS = refusals(404, 410)
_RAW: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}, **_REFUSALS}
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {}, "application/octet-stream": {}}},
    **_REFUSALS,
}

Token = Annotated[str, Path(min_length=16, max_length=64)]
ViewText = Annotated[str, Query(max_length=24)]
Level = Annotated[int, Query(ge=0, le=24)]
Place = Annotated[int, Query(ge=0, le=10**8)]
Reduce = Literal["max", "mean"]
Answer = TypeVar("Answer")


def _window(sink: Place = 4, recent: Annotated[int, Query(ge=1, le=10**8)] = 1020) -> Window:
    return Window(sink=sink, recent=recent)


@dataclass(frozen=True)
class _Asked:
    """Which map, and who waits for it."""

    request: Request
    token: str
    lane: str | None


def _asked(request: Request, token: Token, lane: Literal["a", "b"] | None = None) -> _Asked:
    return _Asked(request, token, lane)


Asked = Annotated[_Asked, Depends(_asked)]
AskedWindow = Annotated[Window, Depends(_window)]


def add_map_routes(app: FastAPI, service: BackendService, desk: Desk) -> None:
    async def ask(run: _Asked, work: Callable[[PromptMap], Answer]) -> Answer:
        return await desk.ask(run.request, lambda check: work(service.prompt_map(run.token, run.lane, check)))

    @app.get("/runs/{token}/map", responses=_REFUSALS)
    async def facts(run: Asked) -> MapFacts:
        return await ask(run, lambda found: found.facts())

    @app.get("/runs/{token}/map/tokens", responses=_REFUSALS)
    async def tokens(run: Asked) -> list[str]:
        return await ask(run, lambda found: found.tokens())

    @app.get("/runs/{token}/map/tile", response_class=Response, responses=_RAW)
    async def tile(
        run: Asked, view: ViewText, level: Level, row: Place, col: Place, reduce: Reduce = "max"
    ) -> Response:
        shown = View.parse(view)
        return _numbers(await ask(run, lambda found: found.tile(shown, level, row, col, reduce)))

    @app.get("/runs/{token}/map/value", responses=_REFUSALS)
    async def value(
        run: Asked,
        window: AskedWindow,
        view: ViewText,
        level: Level,
        row: Place,
        col: Place,
        reduce: Reduce = "max",
    ) -> dict[str, float | int | None]:
        shown = View.parse(view)
        found = await ask(run, lambda found: found.value(shown, level, row, col, reduce, window))
        return found.to_dict()

    @app.get("/runs/{token}/map/row", response_class=Response, responses=_RAW)
    async def row(run: Asked, view: ViewText, start: Place, stop: Place) -> Response:
        shown = View.parse(view)
        return _numbers(await ask(run, lambda found: found.row(shown, start, stop)))

    @app.get("/runs/{token}/map/column", response_class=Response, responses=_RAW)
    async def column(run: Asked, view: ViewText, key: Place) -> Response:
        shown = View.parse(view)
        return _numbers(await ask(run, lambda found: found.column(shown, key)))

    @app.get("/runs/{token}/map/lost", response_class=Response, responses=_RAW)
    async def lost(run: Asked, window: AskedWindow, view: ViewText) -> Response:
        shown = View.parse(view)
        return _numbers(await ask(run, lambda found: found.lost(shown, window)))

    @app.get("/runs/{token}/map/maxima", response_class=Response, responses=_RAW)
    async def maxima(run: Asked, view: ViewText, skip: Place = 0) -> Response:
        shown = View.parse(view)
        return _numbers(await ask(run, lambda found: found.maxima(shown, skip)))

    @app.get("/runs/{token}/map/heads", responses=_REFUSALS)
    async def heads(run: Asked, window: AskedWindow) -> HeadFacts:
        return await ask(run, lambda found: found.heads(window))

    @app.get("/runs/{token}/map/thumbnails", response_class=Response, responses=_RAW)
    async def thumbnails(run: Asked, window: AskedWindow) -> Response:
        return _numbers(await ask(run, lambda found: found.thumbnails(window)))

    @app.get("/runs/{token}/map/rectangle", response_class=Response, responses=_FILES)
    async def rectangle(
        run: Asked,
        view: ViewText,
        level: Level,
        top: Place,
        bottom: Place,
        left: Place,
        right: Place,
        form: Literal["csv", "npz"],
        reduce: Reduce = "max",
    ) -> Response:
        shown = View.parse(view)
        made = await ask(run, lambda found: found.rectangle(shown, level, (top, bottom), (left, right), reduce, form))
        return Response(made, media_type="text/csv" if form == "csv" else "application/octet-stream")


def _numbers(body: bytes) -> Response:
    return Response(body, media_type="application/octet-stream", headers=_KEEP)
