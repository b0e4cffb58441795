"""The Scale page on the embedded model: bytes at once, then the measured speed, then real batches of a prompt."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, settled, visit

# small sizes, and a window of its own, so that no other test's run serves it
ADDRESS = "/scale?prompt=code&recent=92&context=512&batch=2&memory=300"
OF_THE_BENCHMARK = 1


def finish(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel run")).to_be_hidden(timeout=RUN_MS)
    settled(page)


def test_predictions_and_measurements_stand_side_by_side(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, ADDRESS)
    ready_to_run(page)
    charts = page.locator("figure.lt-chart")
    expect(charts).to_have_count(1 + OF_THE_BENCHMARK)
    expect(page.get_by_text("At 512 tokens, 300 MiB of KV memory hold")).to_be_visible()

    finish(page, "Measure")
    expect(page.get_by_text(re.compile(r"memory is read at [\d.]+ GB/s"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"Predicted:.* times as many"))).to_be_visible()
    expect(charts).to_have_count(3 + OF_THE_BENCHMARK)
    expect(charts.nth(1).locator(".main-svg").first).to_be_visible()
    charts.nth(1).get_by_role("button", name="Table").click()
    last = charts.nth(1).locator("tbody tr").last.locator("td, th").all_inner_texts()
    assert len(last) == 5
    assert all(float(cell) > 0 for cell in last[1:]), "both sides, predicted and measured, at the longest context"

    finish(page, "Decode in batches")
    expect(page.get_by_text(re.compile(r"Measured on cpu.*the plan decodes [\d.]+ times"))).to_be_visible()
    table = page.get_by_test_id("stTable").filter(has_text="KV cache kept, formula")
    rows = {row.locator("td, th").first.inner_text(): row for row in table.locator("tbody tr").all()}
    kept = rows["KV cache kept, measured"].inner_text().split("measured")[1]
    assert kept == rows["KV cache kept, formula"].inner_text().split("formula")[1]

    address = page.evaluate("location.href")
    page.reload()
    expect(charts).to_have_count(3 + OF_THE_BENCHMARK, timeout=60_000)
    expect(page.get_by_text(re.compile(r"the plan decodes [\d.]+ times"))).to_be_visible()
    assert page.evaluate("location.href") == address
    assert not complaints


def test_what_the_benchmark_measured_follows_the_choice(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, "/scale?bench_batch=8")
    ready_to_run(page)
    figure = page.locator("figure.lt-chart").last
    expect(figure).to_contain_text("Decode step by context length, float32, batch 8, measured", timeout=60_000)
    expect(figure.locator(".main-svg").first).to_be_visible()
    precision = page.get_by_role("combobox", name="Precision")
    precision.focus()  # a list that opens while the page still scrolls to it closes again
    precision.press("ArrowDown")
    page.get_by_role("option", name="bfloat16").click()
    expect(figure).to_contain_text("bfloat16, batch 8")
    expect(page).to_have_url(re.compile("bench_batch=8.*bench_dtype=bfloat16|bench_dtype=bfloat16.*bench_batch=8"))
    steps = page.get_by_test_id("stTable").filter(has_text="Of the bandwidth limit")
    assert steps.locator("tbody tr").count() == 4
    expect(page.get_by_test_id("stTable").filter(has_text="Verdict")).to_contain_text("missed")
    page.get_by_text("All parts, and how costs grow").click()
    expect(page.get_by_text("per 1,000 tokens that a layer keeps of a sequence")).to_be_visible()
    assert not complaints
