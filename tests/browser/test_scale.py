"""The Scale page on the embedded model: bytes at once, then the measured speed, then real batches of a prompt."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, settled, visit

# small sizes, and a window of its own, so that no other test's run serves it
ADDRESS = "/scale?prompt=code&recent=92&context=512&batch=2&memory=300"


def finish(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel run")).to_be_hidden(timeout=RUN_MS)
    settled(page)


def test_predictions_and_measurements_stand_side_by_side(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, ADDRESS)
    ready_to_run(page)
    charts = page.locator("figure.lt-chart")
    expect(charts).to_have_count(1)
    expect(page.get_by_text("At 512 tokens, 300 MiB of KV memory hold")).to_be_visible()

    finish(page, "Measure")
    expect(page.get_by_text(re.compile(r"memory is read at [\d.]+ GB/s"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"Predicted:.* times as many"))).to_be_visible()
    expect(charts).to_have_count(3)
    expect(charts.nth(1).locator(".main-svg").first).to_be_visible()
    charts.nth(1).get_by_role("button", name="Table").click()
    last = charts.nth(1).locator("tbody tr").last.locator("td, th").all_inner_texts()
    assert len(last) == 5
    assert all(float(cell) > 0 for cell in last[1:]), "both sides, predicted and measured, at the longest context"

    finish(page, "Decode in batches")
    expect(page.get_by_text(re.compile(r"Measured on cpu.*the plan decodes [\d.]+ times"))).to_be_visible()
    table = page.get_by_test_id("stTable").last
    rows = {row.locator("td, th").first.inner_text(): row for row in table.locator("tbody tr").all()}
    kept = rows["KV cache kept, measured"].inner_text().split("measured")[1]
    assert kept == rows["KV cache kept, formula"].inner_text().split("formula")[1]

    address = page.evaluate("location.href")
    page.reload()
    expect(charts).to_have_count(3, timeout=60_000)
    expect(page.get_by_text(re.compile(r"the plan decodes [\d.]+ times"))).to_be_visible()
    assert page.evaluate("location.href") == address
    assert not complaints
