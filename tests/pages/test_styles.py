from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import streamlit as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pages.parts.frame import ASSETS
from pages.parts.styles import STYLES_URL, LinkedStyles, styles
from tests.service.in_process import serving

INDEX = Path(st.__file__).parent / "static" / "index.html"
LINK = f'<link rel="stylesheet" href="{STYLES_URL}">'


async def document(_request: Request) -> FileResponse:
    return FileResponse(INDEX)


async def in_pieces(_request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        whole = INDEX.read_bytes()
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    return StreamingResponse(pieces(), media_type="text/html")


async def somebody_s(_request: Request) -> HTMLResponse:
    return HTMLResponse("<html><body>a report</body></html>")


async def missing(_request: Request) -> Response:
    return HTMLResponse(INDEX.read_text(encoding="utf-8"), status_code=404)


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def browser(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    routes = [
        Route("/", document),
        Route("/pieces", in_pieces),
        Route("/report", somebody_s),
        Route("/missing", missing),
        Route(STYLES_URL, styles),
        Mount("/kept", StaticFiles(directory=INDEX.parent, html=True)),
    ]
    inside = [Middleware(GZipMiddleware)] if request.param else []
    app = Starlette(routes=routes, middleware=[Middleware(LinkedStyles), *inside])
    with serving(app) as transport, httpx2.Client(base_url="http://page", transport=transport) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/pieces"])
def test_the_document_links_the_rules_behind_its_own(browser: httpx2.Client, path: str) -> None:
    answer = browser.get(path)
    index = INDEX.read_text(encoding="utf-8")
    assert answer.text.count(LINK) == 1
    assert answer.text.index(LINK) > answer.text.index("</head>")
    assert answer.text.replace(LINK, "") == index
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_document_kept_from_before_is_sent_anew(browser: httpx2.Client) -> None:
    kept = browser.get("/kept/index.html")
    asked = {"accept": "text/html,*/*", "if-none-match": kept.headers["etag"]}
    assert LINK in browser.get("/kept/index.html", headers=asked).text
    script = browser.get("/kept/favicon.png")
    asked = {"accept": "*/*", "if-none-match": script.headers["etag"]}
    assert browser.get("/kept/favicon.png", headers=asked).status_code == 304


def test_what_is_not_the_document_passes_as_it_is(browser: httpx2.Client) -> None:
    assert browser.get("/report").text == "<html><body>a report</body></html>"
    assert LINK not in browser.get("/missing").text
    assert browser.head("/").status_code == 200


def test_the_rules_are_asked_for_again_when_they_change(browser: httpx2.Client) -> None:
    answer = browser.get(STYLES_URL)
    assert answer.text == (ASSETS / "theme.css").read_text(encoding="utf-8")
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "no-cache"
