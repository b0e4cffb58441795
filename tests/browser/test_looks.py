"""What every page owes its readers, in both themes: no axe violation, no sideways scrolling, a projector mode."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Server, ready_to_run, settled, still, visit

PATHS = ["/", "/laziness", "/convert", "/compare", "/scale", "/frontier", "/sessions"]

# what has been drawn when a page is there
DRAWN = {"/compare": ".lane .layers", "/": "[role='group']", "/sessions": "h1"}

# streamlit's drop zone is "presentation" and focusable at once, which axe counts as a minor conflict; not ours to mend
WITHOUT_UPLOADER = {"exclude": [["[data-testid='stFileUploaderDropzone']"]]}


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1440, 900), ("dark", 1024, 768)])
def test_axe_finds_nothing_and_no_page_scrolls_sideways(
    server: Server, new_page: Callable[..., Page], complaints: list[str], scheme: str, width: int, height: int
) -> None:
    page = new_page(width, height, scheme)
    visit(page, server)
    ready_to_run(page)
    for path in PATHS:
        visit(page, server, path)
        still(page)
        expect(page.locator(DRAWN.get(path, "figure.lt-chart .main-svg")).first).to_be_visible()
        found = Axe().run(page, context=WITHOUT_UPLOADER)
        broken = [
            (rule["id"], rule["impact"], [(node["target"], node["failureSummary"]) for node in rule["nodes"]])
            for rule in found.response["violations"]
        ]
        assert not broken, (path, scheme)
        assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 0, path
    assert not complaints


def test_presentation_mode(server: Server, new_page: Callable[..., Page]) -> None:
    page = new_page(1280, 720)
    for path in PATHS:
        visit(page, server, path + "?present=1")
        expect(page.get_by_role("button", name="Leave presentation")).to_be_visible()
        expect(page.get_by_test_id("stSidebar")).to_be_hidden()
        assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "24px"
        assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 0
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        if path != "/":
            opening = page.locator("div:has(> .st-key-readers_opening)").bounding_box()
            assert opening is not None
            assert opening["height"] <= 1, "what a speaker says takes no room"
        if path == "/convert":
            cells = page.get_by_role("group", name="Layers to convert").get_by_role("button")
            expect(cells.first).to_be_visible()
            cut = "cells => cells.filter((cell) => cell.scrollWidth > cell.clientWidth).length"
            assert cells.evaluate_all(cut) == 0, "every score is read whole"
    page.get_by_role("button", name="Leave presentation").click()
    expect(page.get_by_test_id("stSidebar")).to_be_visible()
    expect(page).not_to_have_url(re.compile("present"))


def test_the_default_address_paints_the_recorded_run(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server)
    expect(page.get_by_text("Recorded run")).to_be_visible()
    expect(page.get_by_role("group", name="Layers with their laziness score")).to_be_visible()
    settled(page)
    code = page.get_by_text("import lighttransfer_core as lt", exact=False)
    expect(code).to_have_count(0)
    page.get_by_text("Use from Python").click()
    expect(code).to_be_visible()
    assert not complaints


def test_an_absurd_address_is_answered_with_words(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, "/convert?model=gpt-9&sink=-3&recent=banana&plan=7-2")
    expect(page.get_by_text("gpt-9", exact=False)).to_be_visible()
    expect(page.get_by_text("banana", exact=False)).to_be_visible()
    expect(page.get_by_text("runs backwards. Write 2-7", exact=False)).to_be_visible()
    assert not complaints
