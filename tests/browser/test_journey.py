"""The whole journey on the embedded model: run, laziness, convert, compare; then what can go wrong on the way."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, settled, visit

# the shortest demo prompt, and an answer of a few tokens: the journey is the same and the machine may be small;
# as chat, so that no other file's tests have run it before
ADDRESS = "?prompt=code&rendering=chat&recent=124&tokens=8"
TEXTS = '[role="region"][aria-label="Answer of lane {}"]'


def run_prefill(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Run( again)?$")).click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_visible()
    expect(page.get_by_text("Prefill, measured")).to_be_visible(timeout=RUN_MS)
    expect(page.get_by_role("button", name="Cancel run")).to_be_hidden(timeout=RUN_MS)
    settled(page)


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stTopNavLink").filter(has_text=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    settled(page)


def test_the_journey(server: Server, page: Page, complaints: list[str], tmp_path: Path) -> None:
    visit(page, server, "/" + ADDRESS)
    ready_to_run(page)
    run_prefill(page)
    expect(page.get_by_text("Recorded run")).to_be_hidden()
    expect(page.get_by_role("group", name="Layers with their laziness score")).to_be_visible()

    go(page, "Laziness")
    charts = page.locator("figure.lt-chart")
    expect(charts).to_have_count(3)
    expect(charts.first.locator(".main-svg").first).to_be_visible()
    _exports(page, tmp_path)

    go(page, "Convert")
    grid = page.get_by_role("group", name="Layers to convert")
    first = grid.get_by_role("button").nth(0)
    before = first.get_attribute("aria-pressed")
    first.click()
    expect(first).to_have_attribute("aria-pressed", "false" if before == "true" else "true")
    expect(page).to_have_url(re.compile(r"plan="))
    _keyboard(page)

    go(page, "Compare")
    page.get_by_role("button", name="Run comparison").click()
    expect(page.get_by_text("Finished after")).to_be_visible(timeout=RUN_MS)
    lanes = [page.locator(TEXTS.format(lane)) for lane in "AB"]
    assert all(lane.inner_text().strip() for lane in lanes)
    tokens = [lane.locator("span[title]").first.inner_text() for lane in lanes]
    assert tokens[0] == tokens[1], "the first token comes from the shared prefill"
    expect(page.locator("figure.chart canvas")).to_have_count(3)
    expect(page.get_by_text("Expected answer:")).to_be_visible()

    address = page.evaluate("location.href")
    page.reload()
    expect(page.get_by_text("Finished after")).to_be_visible(timeout=30_000)
    assert page.evaluate("location.href") == address
    assert not complaints


def _exports(page: Page, folder: Path) -> None:
    chart = page.locator("figure.lt-chart").first
    starts = {"PNG": b"\x89PNG", "SVG": b"<svg", "CSV": b"place,layer,"}
    for kind, start in starts.items():
        with page.expect_download() as waiting:
            chart.get_by_role("button", name=kind, exact=True).click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert path.name == f"laziness-layers.{kind.lower()}"
        assert path.read_bytes().startswith(start)
    chart.get_by_role("button", name="Table").click()
    expect(chart.get_by_role("columnheader", name="layer", exact=True)).to_be_visible()
    assert chart.locator("tbody tr").count() == 30


def _keyboard(page: Page) -> None:
    plan = page.get_by_role("textbox", name="Layers to convert")
    before = plan.input_value()
    cells = page.get_by_role("group", name="Layers to convert").get_by_role("button")
    cells.nth(0).focus()
    page.keyboard.press("End")
    expect(cells.nth(29)).to_be_focused()
    pressed = cells.nth(29).get_attribute("aria-pressed")
    page.keyboard.press("Space")
    expect(cells.nth(29)).to_have_attribute("aria-pressed", "false" if pressed == "true" else "true")
    expect(plan).not_to_have_value(before)
    assert re.fullmatch(r"[\d,-]+", plan.input_value())
    settled(page)


def test_toggles_in_quick_succession_all_count(server: Server, page: Page, complaints: list[str]) -> None:
    """Those too that come while the page is drawn anew with the ones before; and another page knows of all."""
    visit(page, server, "/convert" + ADDRESS + "&plan=2-4")
    grid = page.get_by_role("group", name="Layers to convert")
    expect(page.get_by_role("button", name="Run the prompt", exact=True).or_(grid)).to_be_visible(timeout=120_000)
    if not grid.is_visible():
        run_prefill_from(page, "Run the prompt")
    cells = grid.get_by_role("button")
    for layer in range(6, 14):
        cells.nth(layer).click()
        page.wait_for_timeout(60)  # a hand's pace
    expect(page.get_by_role("textbox", name="Layers to convert")).to_have_value("2-4,6-13")
    expect(page.get_by_text("11 lazy · 19 full")).to_be_visible()
    cells.nth(20).click()
    expect(page).to_have_url(re.compile(r"plan=2-4%2C6-13%2C20"))
    go(page, "Compare")
    expect(page.get_by_text("12 of 30 layers lazy")).to_be_visible()
    assert not complaints


def test_a_colleague_opens_the_address_and_sees_the_result(
    server: Server, new_page: Callable[..., Page], complaints: list[str]
) -> None:
    page = new_page()
    visit(page, server, "/convert" + ADDRESS + "&plan=2-4&sink=8&metric=worst_head")
    expect(page.get_by_role("textbox", name="Layers to convert")).to_have_value("2-4")
    expect(page.get_by_role("spinbutton", name="Sink tokens")).to_have_value("8")
    run_prefill_from(page, "Run the prompt")
    other = new_page(1024, 768, "dark")
    visit(other, server, "/laziness" + ADDRESS + "&plan=2-4&sink=8&metric=worst_head")
    expect(other.locator("figure.lt-chart")).to_have_count(3)
    expect(other.get_by_text("Worst head", exact=False).first).to_be_visible()
    assert "sink=8" in other.evaluate("location.href")
    assert not complaints


def run_prefill_from(page: Page, name: str) -> None:
    """On a page that needs a result; another window on a kept prefill takes no second pass."""
    button = page.get_by_role("button", name=name, exact=True)
    expect(button).to_be_enabled(timeout=120_000)
    button.click()
    expect(page.locator("figure.lt-chart").first).to_be_visible(timeout=RUN_MS)
    settled(page)


def test_cancel_leaves_the_page_ready_to_run_again(server: Server, page: Page) -> None:
    visit(page, server, "/?prompt=needle&rendering=raw")
    ready_to_run(page)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_text("The run was cancelled")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Run again")).to_be_enabled()


def test_the_backend_dies_in_the_middle_of_a_run(server: Server, page: Page) -> None:
    visit(page, server, "/?prompt=dialogue&rendering=chat")
    ready_to_run(page)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text(re.compile(r"Prefill: [1-9]"))).to_be_visible(timeout=60_000)
    pid = server.backend_pid()
    os.kill(pid, signal.SIGKILL)
    expect(page.get_by_text("the backend that held it ended", exact=False)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("What to do:").first).to_be_visible()
    ready_to_run(page)
    assert server.backend_pid() != pid
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text(re.compile(r"Prefill: [1-9]"))).to_be_visible(timeout=120_000)
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_text("The run was cancelled")).to_be_visible(timeout=60_000)


def test_two_clicks_make_one_run(server: Server, page: Page) -> None:
    visit(page, server, "/?prompt=policy&recent=60")
    ready_to_run(page)
    page.get_by_role("button", name="Run", exact=True).dblclick()
    expect(page.get_by_role("button", name="Cancel run")).to_be_visible()
    runs = json.loads(page.evaluate("fetch('/api/metrics').then(r => r.text()).then(t => JSON.stringify(t))"))
    assert "lighttransfer_runs_live 1" in runs
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_text("The run was cancelled")).to_be_visible(timeout=60_000)
