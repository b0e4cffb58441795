"""The Laziness page's views on the embedded model: the replay of the heap is played, and settings are scored anew."""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, settled, still, visit
from tests.browser.test_looks import WITHOUT_UPLOADER

# a window of its own, so that no other test's run serves it
ADDRESS = "/laziness?prompt=code&recent=68&view="
DRAWN = {
    "Heap": ".heap .bar",
    "Sensitivity": ".lt-chart .main-svg",
    "Over prompts": "h1",
    "Beside others": ".lt-chart .main-svg",
}


def view(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).click()
    settled(page)


def test_the_heap_plays_and_settings_are_scored_from_the_kept_prefill(
    server: Server, page: Page, new_page: Callable[..., Page], complaints: list[str]
) -> None:
    visit(page, server, ADDRESS + "Heap")
    ready_to_run(page)
    page.get_by_role("button", name="Run the prompt", exact=True).click()
    heap = page.locator(".heap")
    expect(heap).to_be_visible(timeout=RUN_MS)
    settled(page)

    place, said = heap.locator("[data-part=place]"), heap.locator("[data-part=words]")
    expect(place).to_have_text("Step 45 of 45")
    stage = heap.locator("[data-part=stage]")
    stage.press("Home")
    expect(said).to_have_text("Before the first layer: nothing is held yet.")
    stage.press("ArrowRight")
    expect(said).to_have_text(re.compile(r"passed layer 0: it scores [\d.]+ and enters the queue"))
    heap.get_by_label("Step of the prefill").fill("16")
    expect(said).to_have_text(re.compile(r"One layer too many is full: layer \d+ is the laziest and leaves next"))
    expect(heap.locator(".queue li")).to_have_count(16)
    heap.get_by_role("button", name="Step", exact=True).click()
    expect(said).to_have_text(re.compile("leaves the queue: its cache is cut"))
    expect(heap.locator(".bar.lazy")).to_have_count(1)
    heap.get_by_label("Replay speed").select_option("30")
    heap.get_by_role("button", name="Play").click()
    expect(place).to_have_text("Step 45 of 45")
    expect(heap.locator(".bar.lazy")).to_have_count(15)

    view(page, "Sensitivity")
    chart = page.locator("figure.lt-chart")
    expect(chart.locator(".main-svg").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(r"From 60 to 2,044 recent tokens .* ρ = "))).to_be_visible(timeout=60_000)
    page.get_by_role("radio", name="Last queries", exact=True).click()
    expect(page.get_by_text(re.compile(r"From 1 to 128 last queries .* ρ = "))).to_be_visible(timeout=60_000)
    chart.get_by_role("button", name="Table").click()
    rows = [row.locator("td, th").all_inner_texts() for row in chart.locator("tbody tr").all()]
    now = next(cells for cells in rows if cells[:2] == ["32", "in"])
    assert now[2:5] == ["1", "15", "15"]
    assert sorted(now[5:], key=int) == [str(rank) for rank in range(1, 31)]
    expect(page).to_have_url(re.compile("vary=Last"))
    _looks_right(server, new_page)
    assert not complaints


def _looks_right(server: Server, new_page: Callable[..., Page]) -> None:
    """Every view in both themes and on a small screen: no axe violation, and no scrolling sideways."""
    for scheme in ("light", "dark"):
        page = new_page(1024, 768, scheme)
        for name, drawn in DRAWN.items():
            visit(page, server, ADDRESS + name.replace(" ", "+"))
            still(page)
            expect(page.locator(drawn).first).to_be_visible()
            settled(page)
            broken = [
                (rule["id"], [(node["target"], node["failureSummary"]) for node in rule["nodes"]])
                for rule in Axe().run(page, context=WITHOUT_UPLOADER).response["violations"]
            ]
            assert not broken, (name, scheme)
            assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 0, name
