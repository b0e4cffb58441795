"""What the page server as it is started says with every answer, and whom it does not listen to."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import streamlit as st
from playwright.sync_api import Page

from lighttransfer_core.service.headers import content_security_policy, inline_script_hashes
from tests.browser.conftest import Server


def ask(server: Server, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    connection.close()
    return answer


@pytest.mark.parametrize(
    "path", ["/", "/compare", "/no/such/page", "/_stcore/health", "/modules/map/map.js", "/modules/map/no.js", "/api/x"]
)
def test_every_answer_of_the_page_server_carries_the_headers(server: Server, path: str) -> None:
    answer = ask(server, "GET", path, {})
    index = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    assert answer.getheader("content-security-policy") == content_security_policy(inline_script_hashes(index))
    assert answer.getheader("x-content-type-options") == "nosniff"
    assert answer.getheader("referrer-policy") == "no-referrer"
    assert answer.getheader("x-frame-options") == "DENY"


@pytest.mark.parametrize("path", ["/", "/attention?prompt=code", "/laziness?view=Heap"])
def test_every_page_is_drawn_with_the_app_s_style_from_its_first_text_on(
    server: Server, page: Page, path: str, complaints: list[str]
) -> None:
    seen = """() => {
      const look = () => {
        const text = document.querySelector("[data-testid=stMain] :is(h1, [data-testid=stCaptionContainer])")
        if (!text) return requestAnimationFrame(look)
        window.firstWidth = getComputedStyle(document.querySelector("[data-testid=stMainBlockContainer]")).maxWidth
      }
      look()
    }"""
    page.add_init_script(f"({seen})()")
    page.goto(server.url + path)
    page.get_by_role("heading", level=1).wait_for(timeout=60_000)
    found = """() => new Promise((done) => {
      const look = () => window.firstWidth ? done(window.firstWidth) : requestAnimationFrame(look)
      look()
    })"""
    assert page.evaluate(found) == "1440px"
    assert not complaints


@pytest.mark.parametrize(("origin", "status"), [("https://elsewhere.example", 403), (None, 101)])
def test_pages_of_another_site_open_no_session(server: Server, origin: str | None, status: int) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": origin or server.url,
    }
    assert ask(server, "GET", "/_stcore/stream", headers).status == status
