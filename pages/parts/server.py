"""The page server around the pages: the backend's life, its routes on this origin, chart library, headers, style."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from lighttransfer_core.service.headers import SecurityHeaders, inline_script_hashes
from lighttransfer_core.service.proxy import ApiProxy
from pages.parts.backend import backend
from pages.parts.styles import STYLES_URL, LinkedStyles, styles
from viz.components import MODULES, MODULES_URL
from viz.components.chart import LIBRARY_FILE, LIBRARY_URL

_INDEX = Path(st.__file__).parent / "static" / "index.html"
_MODULE_FOLDERS = ("map", "live", "heap")
_PAGE_MODULES = ("pages.parts.shell", "viz.laziness", "viz.scale", "viz.comparison")
_TABLE_MODULES = ("pandas",)
"""What Streamlit draws tables with: no part of the first page."""
_FEW_CORES = 4
_HEAD_START_S = 4.0
"""How long the first page may go before the backend, and before tables, where they would share few cores."""
_A_DAY = {"Cache-Control": "public, max-age=86400"}
_ASK_AGAIN = {"Cache-Control": "no-cache"}


@st.cache_resource(show_spinner=False)
def _proxy() -> ApiProxy:
    return ApiProxy(backend())


async def _chart_library(_request: Request) -> FileResponse:
    return FileResponse(LIBRARY_FILE, media_type="text/javascript", headers=_A_DAY)


async def _module(request: Request) -> Response:
    folder, name = request.path_params["folder"], request.path_params["name"]
    file = MODULES / folder / f"{name}.js"
    known = folder in _MODULE_FOLDERS and file.parent == MODULES / folder
    if not known or not os.path.isfile(file):  # Path.is_file raises where the name is longer than any file's
        return Response(status_code=404)
    return FileResponse(file, media_type="text/javascript", headers=_ASK_AGAIN)


def routes() -> list[BaseRoute]:
    """The backend under /api, the chart library, the components' modules and the style, beside the pages."""
    modules = Route(f"{MODULES_URL}/{{folder:str}}/{{name:str}}.js", _module)
    return [*_proxy().routes, Route(LIBRARY_URL, _chart_library), modules, Route(STYLES_URL, styles)]


def middleware() -> list[Middleware]:
    """Security headers that allow the pages' own index and nothing foreign, and the link to the style in it."""
    hashes = inline_script_hashes(_INDEX.read_text(encoding="utf-8"))
    return [Middleware(SecurityHeaders, script_hashes=hashes), Middleware(LinkedStyles)]


def answer_at_once() -> int:
    """Switch Nagle's algorithm off for connections to this process's listening sockets; how many there were.

    Streamlit binds its socket in a way that keeps asyncio from doing so, and then every answer on a kept connection
    waits 40 ms for the browser to acknowledge its headers. Connections inherit the option.
    """
    listening = [
        found
        for found in gc.get_objects()
        if type(found) is socket.socket
        and found.fileno() >= 0
        and found.family in (socket.AF_INET, socket.AF_INET6)
        and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ]
    for found in listening:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return len(listening)


def settle() -> None:
    """Load what pages use, and take it out of the garbage collector's sight.

    Streamlit collects all garbage after each script run. Walking the libraries' own objects took half of such a run;
    they live as long as the process.
    """
    _load(_PAGE_MODULES)
    time.sleep(head_start_s())
    _load(_TABLE_MODULES)


def _load(modules: tuple[str, ...]) -> None:
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def head_start_s() -> float:
    """How long what the first page does not need waits for it: on few cores, for as long as a browser may draw it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _HEAD_START_S if cores <= _FEW_CORES else 0.0


def start_backend() -> asyncio.TimerHandle:
    """Start it now or, on few cores, when a page asks for it (`ApiProxy.up`), which it does once it is drawn.

    Importing torch takes as much of two cores as the browser needs to draw that page.
    """
    return asyncio.get_running_loop().call_later(head_start_s(), backend().start)


@asynccontextmanager
async def lifespan(_app: st.App) -> AsyncIterator[dict[str, Any] | None]:
    """The embedded backend lives as long as the page server."""
    answer_at_once()
    starting = start_backend()
    settling = threading.Thread(target=settle, name="settle", daemon=True)
    settling.start()
    try:
        yield None
    finally:
        starting.cancel()
        await _proxy().aclose()
        await anyio.to_thread.run_sync(backend().stop)
