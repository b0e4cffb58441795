"""The live panel on the embedded model: watched, paused, changed, joined, asked on, saved, and reopened elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, serving, settled, visit

# a window of its own, so that no other test's run serves it
ADDRESS = "/compare?prompt=code&recent=76&tokens={}"


def open_compare(page: Page, server: Server, tokens: int, more: str = "") -> None:
    """The Compare page with a result at hand, before any comparison."""
    visit(page, server, ADDRESS.format(tokens) + more)
    ready_to_run(page)
    run = page.get_by_role("button", name="Run the prompt", exact=True)
    compare = page.get_by_role("button", name="Run comparison")
    expect(run.or_(compare)).to_be_visible(timeout=60_000)
    if run.is_visible():
        run.click()
    expect(compare).to_be_enabled(timeout=RUN_MS)


def status(page: Page) -> Locator:
    return page.locator(".panel .status")


def lane(page: Page, name: str) -> Locator:
    return page.locator(f'.lane[data-lane="{name}"]')


def tokens_of(page: Page, name: str) -> int:
    return lane(page, name).locator("[data-step]").count()


def start_paused(page: Page) -> None:
    """Every step at which it says that it stands is drawn, and no other comes."""
    page.get_by_role("button", name="Run comparison").click()
    page.get_by_role("button", name="Pause").click(timeout=60_000)
    paused = re.compile(r"Paused at (\d+) of")
    expect(status(page)).to_have_text(paused, timeout=60_000)
    before = -1
    for _ in range(60):
        found = paused.search(status(page).inner_text())
        at = int(found.group(1)) if found is not None else -1
        if at == before == tokens_of(page, "a") == tokens_of(page, "b"):
            return
        before = at
        page.wait_for_timeout(500)
    raise AssertionError(f"it never stood: {status(page).inner_text()}")


def finished(page: Page) -> None:
    expect(status(page)).to_have_text(re.compile("Finished after"), timeout=RUN_MS)
    settled(page)


def test_pause_step_a_layer_a_reload_and_the_end(
    server: Server, page: Page, complaints: list[str], tmp_path: Path
) -> None:
    open_compare(page, server, 24)
    start_paused(page)
    before = tokens_of(page, "a")
    page.get_by_role("button", name="Step", exact=True).click()
    expect(lane(page, "a").locator("[data-step]")).to_have_count(before + 1)

    layers = page.get_by_role("group", name="Layers of lane B").get_by_role("button")
    expect(layers).to_have_count(30)
    was = layers.nth(29).get_attribute("aria-pressed")
    layers.nth(29).click()
    expect(layers.nth(29)).to_have_attribute("aria-pressed", "false" if was == "true" else "true")
    expect(lane(page, "b").locator("[data-step]")).to_have_count(before + 1)
    expect(page).to_have_url(re.compile("plan="))
    settled(page)
    page.reload()
    expect(status(page)).to_have_text(re.compile(rf"Paused at {before + 1} of"), timeout=60_000)

    page.get_by_label("Speed limit").select_option("10")
    page.get_by_role("button", name="Continue").click()
    finished(page)
    _reads_what_it_measured(page)
    _looks_at_a_token(page)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save this run as a session file").click()
    waiting.value.save_as(tmp_path / "session.json")
    events = json.loads((tmp_path / "session.json").read_text(encoding="utf-8"))["events"]
    assert [event["kind"] for event in events].count("lane") == 1
    assert not complaints


def _reads_what_it_measured(page: Page) -> None:
    for name in "ab":
        expect(lane(page, name).locator(".kv")).to_have_text(lane(page, name).locator(".formula").inner_text())
        expect(lane(page, name).locator(".p95")).to_have_text(re.compile(r"\d+ m?s"))
    canvases = page.locator("figure.chart canvas")
    expect(canvases).to_have_count(3)
    for index in range(3):
        assert re.search(r"B [\d.e-]+ (MiB|ms|nats)", str(canvases.nth(index).get_attribute("aria-label")))


def _looks_at_a_token(page: Page) -> None:
    lane(page, "b").locator("[data-step]").nth(2).click()
    columns = page.locator(".candidates .columns > div")
    expect(columns).to_have_count(2)
    expect(columns.nth(1).locator("li")).to_have_count(10)
    expect(columns.nth(1).locator("h3")).to_have_text(re.compile(r"B, KL .* nats"))
    _a_chart_stays_under_the_cursor(page)


def _a_chart_stays_under_the_cursor(page: Page) -> None:
    """The first click brings the candidates, above the charts."""
    page.reload()
    finished(page)
    canvas = page.locator("figure[data-part=kl] canvas")
    canvas.scroll_into_view_if_needed()
    before = canvas.bounding_box()
    assert before
    canvas.click(position={"x": before["width"] / 2, "y": before["height"] / 2})
    expect(page.locator(".candidates")).to_be_visible()
    after = canvas.bounding_box()
    assert after
    assert abs(after["y"] - before["y"]) < 2


def test_a_second_browser_joins_and_changes_only_a_copy(
    server: Server, new_page: Callable[..., Page], complaints: list[str]
) -> None:
    one, other = new_page(), new_page(1024, 768, "dark")
    open_compare(one, server, 160, "&plan=3-9")
    one.get_by_role("button", name="Run comparison").click()
    expect(lane(one, "b").locator("[data-step]").first).to_be_visible(timeout=60_000)
    visit(other, server, ADDRESS.format(160) + "&plan=3-9")
    expect(lane(other, "b").locator("[data-step]").first).to_be_visible(timeout=60_000)
    other.get_by_role("button", name="Pause").click()
    expect(other.get_by_text("Others follow this run as well")).to_be_visible()
    expect(status(one)).not_to_have_text(re.compile("Paused"))
    other.get_by_role("button", name="Make my own copy").click()
    expect(other).to_have_url(re.compile("copy="))
    expect(other.get_by_role("button", name="Pause")).to_be_visible(timeout=60_000)
    other.get_by_role("button", name="Pause").click()
    expect(status(other)).to_have_text(re.compile("Paused"))
    finished(one)
    other.get_by_role("button", name="Cancel run").click()
    expect(other.get_by_text("The run was cancelled")).to_be_visible(timeout=60_000)
    refused = [line for line in complaints if "409" in line]
    assert len(complaints) == len(refused) == 1, "the refusal is the only error"


def test_lanes_more_a_further_question_and_teacher_forcing(server: Server, page: Page, complaints: list[str]) -> None:
    open_compare(page, server, 16, "&plan=1-28&also=all")
    page.get_by_role("button", name="Run comparison").click()
    finished(page)
    expect(page.locator(".lane")).to_have_count(3)
    expect(page.locator(".lost")).to_have_text(re.compile(r"C: its 30 lazy layers no longer see [\d,]+ of the"))

    page.get_by_label("Ask every lane a further question").fill("<b>Which</b> class is it in?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(lane(page, "c").locator(".question")).to_have_text("<b>Which</b> class is it in?", timeout=60_000)
    finished(page)
    assert tokens_of(page, "a") > 16

    page.get_by_role("button", name="Leave out the further question").click()
    steps = {name: lane(page, name).locator(".text span[data-step]") for name in "ab"}
    expect(steps["a"]).to_have_count(16, timeout=60_000)
    finished(page)
    full = steps["a"].all_inner_texts()
    assert steps["b"].all_inner_texts() != full, "lane B is still to say something else of its own"
    lane(page, "b").get_by_role("checkbox").check()
    expect(steps["b"]).to_have_text(full, timeout=RUN_MS)
    finished(page)
    assert [steps[name].all_inner_texts() for name in "ab"] == [full, full]
    assert not complaints


def test_the_backend_dies_in_the_middle_of_a_comparison(server: Server, page: Page) -> None:
    open_compare(page, server, 96, "&plan=5-9")
    page.get_by_role("button", name="Run comparison").click()
    expect(lane(page, "b").locator("[data-step]").nth(2)).to_be_visible(timeout=60_000)
    os.kill(server.backend_pid(), signal.SIGKILL)
    expect(page.get_by_text("The run is gone", exact=False)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("started again", exact=False).first).to_be_visible()


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An app whose backend cannot be reached: no model anywhere."""
    with serving(tmp_path_factory, {"LIGHTTRANSFER_BACKEND": "http://127.0.0.1:9"}) as made:
        yield made


def test_a_session_replays_where_there_is_no_model(bare_server: Server, page: Page, tmp_path: Path) -> None:
    recorded = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "default_run.json"
    session = json.loads(recorded.read_text(encoding="utf-8"))["session"]
    (tmp_path / "session.json").write_text(json.dumps(session), encoding="utf-8")
    (tmp_path / "other.json").write_text('{"format": "something else"}', encoding="utf-8")
    visit(page, bare_server, "/sessions")
    inputs = page.locator('input[type="file"]')
    inputs.nth(1).set_input_files(tmp_path / "other.json")
    expect(page.get_by_text("not a saved session", exact=False)).to_be_visible()
    inputs.nth(0).set_input_files(tmp_path / "session.json")
    finished(page)
    total = tokens_of(page, "a")
    assert total == len(session["result"]["lanes"]["a"]["answers"][0]["tokens"])
    expect(page.get_by_role("group", name="Layers of lane B").get_by_role("button")).to_have_count(0)

    page.get_by_label("Replay speed").select_option("20")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("button", name="Stop replay")).to_be_visible()
    finished(page)
    page.get_by_label("Replay position").fill("5")
    expect(lane(page, "a").locator("[data-step]")).to_have_count(5)
    expect(status(page)).to_have_text(re.compile("Replay: 5 of"))
    for kind, start in {"PNG": b"\x89PNG", "SVG": b"<svg", "CSV": b"token,A (bytes)"}.items():
        with page.expect_download() as waiting:
            page.locator("figure.chart").first.get_by_role("button", name=kind).click()
        waiting.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(start)


def test_a_value_beyond_the_axis_is_marked_and_written(server: Server, page: Page) -> None:
    """So is one at the right edge, whose number stands on the other side of its mark."""
    visit(page, server, "/sessions")
    drawn = page.evaluate("""async () => {
      const { TokenChart } = await import("/modules/live/charts.js")
      const { SvgContext } = await import("/modules/map/svg.js")
      const host = document.createElement("figure")
      host.innerHTML = '<b class="title"></b><canvas></canvas><p class="read"></p>'
      const chart = new TokenChart(host, { name: "x", title: "X", unit: "ms", scale: 1000, build: () => null })
      const values = [0.1, 0.9, 0.2, 0.1, 0.1, 0.1, 0.1, 0.8]
      const lines = [{ lane: "a", label: "A", values }, { lane: "b", label: "B", values: [0.1, 0.7] }]
      chart.content = { lines, total: values.length, top: 0.3 }
      chart.cursor = null
      const ctx = new SvgContext(300, 150)
      chart.paint(ctx, 300, 150, {
        scale: 1, font: "sans-serif", grid: "#ccc", ink: "#000",
        lanes: { a: "#a00", b: "#00a" },
      })
      return ctx.toString()
    }""")
    places = {value: float(x) for x, value in re.findall(r'<text x="([\d.]+)"[^>]*>([AB] [\d.]+) ms</text>', drawn)}
    assert places.keys() == {"A 900", "B 700", "A 800"}
    marks = [float(x) for x in re.findall(r'<path d="M([\d.]+) 2L[^"]*" fill="#a00"', drawn)]
    assert len(marks) == 2
    assert marks[0] < places["A 900"] < places["B 700"] - 30, "lanes that stall together are both read"
    assert places["A 800"] < marks[1]
