"""Evidence of one's own on the embedded model: a small sweep to its end, a plan beside it, the check of a choice."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN_MS, Server, ready_to_run, settled, visit
from tests.browser.test_looks import WITHOUT_UPLOADER

# two short prompts, and a few plans: the way is the same and the machine may be small
SWEEP = "/frontier?plan=0-14&lengths=512&shares=50%25&rank=lazy_ratio&chance=1&prompts=2&answer_tokens=8&first_seed=7"
CHECK = "/convert?prompt=policy&plan=0-14&check_tokens=700"


def to_its_end(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("button", name="Cancel run")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel run")).to_be_hidden(timeout=RUN_MS)
    settled(page)


def test_a_sweep_becomes_evidence_with_one_s_own_plan_in_it(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, SWEEP)
    ready_to_run(page)
    to_its_end(page, "Run the sweep")
    expect(page.get_by_text("All measured: 2 prompts.")).to_be_visible()
    expect(page).to_have_url(re.compile(r"evidence=smollm2%2C\+niah_single_1%2C\+512\+tokens%2C\+seeds\+from\+7"))
    expect(page.get_by_text("There are not enough prompts to say")).to_be_visible()
    chart = page.locator("figure.lt-chart")
    expect(chart.locator(".main-svg").first).to_be_visible()
    expect(chart.get_by_text("One random order")).to_be_visible()
    expect(page.get_by_text("It was not tried on these prompts yet.")).to_be_visible()

    to_its_end(page, "Try my plan on these prompts")
    expect(page.get_by_text(re.compile(r"It scores \d\.\d\d \[.*\] on 2 prompts"))).to_be_visible()
    expect(chart.get_by_text("Your plan", exact=True)).to_be_visible()

    address = page.evaluate("location.href")
    page.reload()
    expect(page.get_by_text("All measured: 2 prompts.")).to_be_visible(timeout=60_000)
    assert page.evaluate("location.href") == address
    assert not complaints


def test_a_check_shows_answers_as_they_come(server: Server, page: Page, complaints: list[str]) -> None:
    visit(page, server, CHECK)
    ready_to_run(page)
    page.get_by_role("button", name="Check my choice").click()
    answers = page.get_by_role("figure", name="Answers to the same prompts")
    two_tasks_both_ways = answers.get_by_text(re.compile(r"^\d of \d right$")).nth(11)
    expect(two_tasks_both_ways).to_be_visible(timeout=RUN_MS)
    expect(answers.get_by_role("rowheader", name="asked later")).to_have_count(2)
    share = r"\d+% \[\d+%, \d+%\]"
    so_far = re.compile(rf"So far the plan keeps .* {share} asked in the prompt, {share} asked later")
    expect(answers.get_by_text(so_far)).to_be_visible()
    found = Axe().run(page, context=WITHOUT_UPLOADER)
    assert not [(rule["id"], rule["nodes"]) for rule in found.response["violations"]]
    page.get_by_role("button", name="Cancel run").click()
    expect(page.get_by_text("The run was cancelled")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Check my choice")).to_be_visible()
    assert not complaints
