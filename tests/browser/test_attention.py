"""The attention explorer on the embedded model: from the whole triangle to one pair, and away with it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import RUN_MS, Server, settled, visit
from tests.browser.test_looks import WITHOUT_UPLOADER

# a window of its own, so that no other test has scored the prompt with it
ADDRESS = "?prompt=code&rendering=raw&recent=124&tokens=8"


def explore(page: Page, server: Server, view: str = "") -> Locator:
    """The map, with the prompt run first where it was not yet."""
    visit(page, server, f"/attention{ADDRESS}&map={view}")
    button = page.get_by_role("button", name="Run the prompt", exact=True)
    explorer = page.locator(".explorer")
    expect(button.or_(explorer)).to_be_visible(timeout=120_000)
    if button.is_visible():
        expect(button).to_be_enabled(timeout=120_000)
        button.click()
    expect(explorer).to_be_visible(timeout=RUN_MS)
    settled(page)
    return page.locator("canvas.map")


def complete(canvas: Locator) -> None:
    expect(canvas).to_have_attribute("data-complete", "true", timeout=60_000)


def zoom_in(page: Page, canvas: Locator, x: float, y: float) -> None:
    """To single pairs, about a place given in parts of the canvas."""
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    for _ in range(30):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(20)  # one animation frame, as a hand would
    complete(canvas)
    expect(canvas).to_have_attribute("data-level", "0")


def reading(page: Page) -> float:
    """The exact value under the cursor, once the backend has given it."""
    line = page.locator('.explorer .number[data-exact]:not([data-exact=""])')
    return float(line.get_attribute("data-exact", timeout=20_000) or "")


def test_from_the_overview_to_one_pair_and_away(
    server: Server, page: Page, new_page: Callable[..., Page], complaints: list[str], tmp_path: Path
) -> None:
    canvas = explore(page, server, "view.0.1")
    complete(canvas)
    assert int(canvas.get_attribute("data-level") or "") >= 2, "the whole prompt in coarse cells"
    zoom_in(page, canvas, 0.3, 0.6)
    page.mouse.move(0, 0)
    box = canvas.bounding_box()
    assert box
    around = (84 + 12) - (8 + 70)  # the room for axes and their titles
    assert abs(box["width"] - box["height"] - around) < 2, "the plot is square"
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    expect(page).to_have_url(re.compile(r"query\.\d+_key\.\d+"))
    query, key = (int(found) for found in re.findall(r"(?:query|key)\.(\d+)", page.url))
    value = reading(page)
    assert page.locator(".strip mark").count() == 2

    rows = list(csv.reader(io.StringIO(download(page, "CSV", tmp_path).decode())))
    keys = [int(cell) for cell in rows[0][2:]]
    row = next(row for row in rows[2:] if int(row[0]) == query)
    assert abs(float(row[2 + keys.index(key)]) - value) <= 1e-4 * value, "the file and the cursor say the same"
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("NPZ", b"PK"), ("HTML", b"<!doctype html>")):
        assert download(page, kind, tmp_path).startswith(start)

    page.get_by_label("streaming loss").check()
    page.get_by_label("row mean").check()
    page.get_by_label("Head", exact=True).select_option("4")
    complete(canvas)
    expect(page).to_have_url(re.compile(r"view\.0\.4_.*lost\.on_mean\.on"))
    level, address = canvas.get_attribute("data-level"), page.url

    other = new_page(1024, 768, "dark")
    other.goto(address)
    again = other.locator("canvas.map")
    complete(again)
    expect(other.get_by_label("Layer", exact=True)).to_have_value("0")
    expect(other.get_by_label("Head", exact=True)).to_have_value("4")
    expect(other.get_by_label("streaming loss")).to_be_checked()
    assert again.get_attribute("data-level") == level
    expect(other.locator('[data-strip="query"] .role')).to_have_text(f"Query {query:,}")
    assert other.url == address, "looking changes no address"
    assert not complaints


def download(page: Page, kind: str, folder: Path) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=kind, exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.suffix == f".{kind.lower()}"
    return path.read_bytes()


def test_the_map_by_keyboard(server: Server, page: Page, complaints: list[str]) -> None:
    canvas = explore(page, server)
    complete(canvas)
    canvas.focus()
    page.keyboard.press(".")
    page.keyboard.press("]")
    expect(page.get_by_label("Layer", exact=True)).to_have_value("1")
    expect(page.get_by_label("Head", exact=True)).to_have_value("1")
    for _ in range(14):
        page.keyboard.press("+")
    complete(canvas)
    expect(canvas).to_have_attribute("data-level", "0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator(".numbers tbody tr").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".numbers")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_text("Keys on the map.")).to_be_visible()
    page.keyboard.press("0")
    expect(canvas).not_to_have_attribute("data-level", "0")
    assert "queries 0 to" in (canvas.get_attribute("aria-label") or "")
    assert not complaints


def test_all_heads_sorted_and_one_in_place(server: Server, page: Page, complaints: list[str]) -> None:
    explore(page, server, "tab.heads")
    heads = page.locator(".head")
    expect(heads).to_have_count(270, timeout=60_000)
    page.get_by_text("The first heads of each kind").click()
    expect(page.locator(".finder dd").first.get_by_role("button")).to_have_count(6)
    page.get_by_text("The first heads of each kind").click()
    page.get_by_label("Sort by").select_option("sink")
    first = heads.first
    expect(first).to_contain_text("%")
    shares = [float(text) for text in re.findall(r"([\d.]+)%", " ".join(heads.all_inner_texts()))]
    assert len(shares) == 270
    assert shares == sorted(shares, reverse=True)
    first.click()
    expect(first).to_have_attribute("aria-expanded", "true")
    name = (first.get_attribute("title") or "").split(", streams")[0]
    expect(page.locator(".expanded b")).to_have_text(name)
    page.get_by_role("button", name="Open in the map").click()
    layer, head = re.findall(r"\d+", name)
    expect(page.get_by_label("Layer", exact=True)).to_have_value(layer)
    expect(page.get_by_label("Head", exact=True)).to_have_value(head)
    complete(page.locator("canvas.map"))
    assert not complaints


def test_the_text_is_shaded_searched_and_clicked(server: Server, page: Page, complaints: list[str]) -> None:
    explore(page, server, "tab.text_view.7.3_grain.word")
    chosen = page.locator(".unit.chosen")
    expect(chosen).to_have_count(1)
    page.get_by_label("Find in the prompt").fill("def late_fine")
    expect(page.locator(".found")).to_have_text(re.compile(r"1 of \d"))
    hit = page.locator(".unit.hit").first
    expect(hit).to_be_in_viewport()
    hit.click()
    expect(hit).to_have_class(re.compile("chosen"))
    expect(page).to_have_url(re.compile(r"query\.\d+"))
    page.get_by_label("Find in the prompt").fill("no such words here")
    expect(page.locator(".found")).to_have_text("not in the prompt")
    page.get_by_label("arcs to the strongest").check()
    expect(page.locator(".text svg path").first).to_be_attached()
    page.get_by_label("Show", exact=True).select_option("in")
    expect(page.locator(".said")).to_contain_text("Who looks at token")
    assert not complaints


def test_from_the_needle_in_the_text_to_its_cell(server: Server, page: Page, complaints: list[str]) -> None:
    explore(page, server, "tab.text_view.7.3_way.in")
    page.get_by_label("Find in the prompt").fill("min(30.0")
    page.locator(".unit.hit").first.click()
    expect(page).to_have_url(re.compile(r"key\.\d+"))
    page.get_by_role("button", name="Show in the map").click()
    canvas = page.locator("canvas.map")
    complete(canvas)
    expect(canvas).to_have_attribute("data-level", "0")
    expect(page).to_have_url(re.compile(r"box\."))
    query, key = (int(found) for found in re.findall(r"(?:query|key)\.(\d+)", page.url))
    assert query == int(canvas.get_attribute("data-tokens") or "") - 1, "the question, which the last token has read"
    expect(page.locator('[data-strip="key"]')).to_contain_text("min(30.0")
    expect(page.locator('[data-strip="key"] .role')).to_have_text(f"Key {key:,}")
    reading(page)
    page.get_by_role("tab", name="Text").click()
    page.get_by_role("tab", name="Map").click()
    page.locator("canvas.map").focus()
    page.keyboard.press("0")
    expect(canvas).not_to_have_attribute("data-level", "0")
    page.get_by_role("button", name="Zoom to the chosen pair").click()
    expect(canvas).to_have_attribute("data-level", "0")
    assert not complaints


def test_an_address_that_asks_for_the_impossible_says_so(server: Server, page: Page, complaints: list[str]) -> None:
    canvas = explore(page, server, "view.99.0_scale.rainbow_query.9999999")
    complete(canvas)
    expect(page.locator(".notice")).to_contain_text("view.99.0")
    expect(page.get_by_label("Layer", exact=True)).to_have_value("0")
    assert not complaints


def test_two_tabs_on_two_prompts_stay_right(server: Server, page: Page, new_page: Callable[..., Page]) -> None:
    canvas = explore(page, server)
    other = new_page()
    visit(other, server, "/attention?prompt=dialogue&rendering=raw&recent=124")
    button = other.get_by_role("button", name="Run the prompt", exact=True)
    expect(button).to_be_enabled(timeout=120_000)
    button.click()
    second = other.locator("canvas.map")
    expect(second).to_be_visible(timeout=RUN_MS)
    for _ in range(2):
        for tab, map_ in ((page, canvas), (other, second)):
            tab.get_by_label("Head", exact=True).select_option("2")
            complete(map_)
            tab.get_by_label("Head", exact=True).select_option("5")
            complete(map_)
    for map_, shown in ((canvas, "head 5, code"), (second, "head 5, dialogue")):
        # a frame after the choice
        expect(map_).to_have_attribute("aria-label", re.compile(shown))
        complete(map_)
    texts = [tab.evaluate(TOKEN_TEXT) for tab in (page, other)]
    assert "late_fine" in texts[0]
    assert "late_fine" not in texts[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_panel_and_nothing_is_too_wide(
    server: Server, new_page: Callable[..., Page], complaints: list[str], scheme: str
) -> None:
    page = new_page(1024, 768, scheme)
    canvas = explore(page, server, "query.900_key.500_lost.on_mean.on")
    complete(canvas)
    expect(page.locator(".numbers tbody tr").first).to_be_visible()
    for tab, ready in (("Map", "canvas.map"), ("All heads", ".head >> nth=269"), ("Text", ".unit.chosen")):
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(ready)).to_be_visible(timeout=60_000)
        found = Axe().run(page, context=WITHOUT_UPLOADER)
        broken = [
            (rule["id"], [(node["target"], node["failureSummary"]) for node in rule["nodes"]][:3])
            for rule in found.response["violations"]
        ]
        assert not broken, f"{tab}: {broken}"
        over = page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth")
        assert over <= 0, tab
    assert not complaints


TOKEN_TEXT = """async () => {
  const seen = performance.getEntriesByType("resource").map((entry) => entry.name)
  const address = seen.findLast((name) => name.includes("/map/tokens"))
  return (await (await fetch(address)).json()).join("")
}"""
