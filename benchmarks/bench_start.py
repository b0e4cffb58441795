"""What a user waits for when the app starts: `python -m benchmarks.bench_start`.

Every round starts the app anew, with a browser that is open already, and measures from the command

* to the page server's first answer, to the backend's, and to the first useful paint of the default address (the
  recorded run, labelled as recorded), and to that of a page of nothing but Streamlit, by turns;

then, as a user who clicks at once, from "Run the prompt" to its result (the model is loaded for it), and from "Run
comparison" to the first token on the screen.

Writes `bench_start.json` into `results/`. Files are in the system's cache: the first round is left out.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, expect

from benchmarks.bench_attention import browser
from benchmarks.running_app import RunningApp, started_app
from lighttransfer_core.errors import LightTransferError

RUN_MS = 600_000
PAINT_BAR_S = 3.0
PAINT = "command to first useful paint"
EMPTY_PAINT = "the same of a page of nothing but Streamlit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="starts that count, after one that does not")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the file")
    given = parser.parse_args()
    rounds = [a_start() | an_empty_start() for _ in range(given.rounds + 1)][1:]
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "bench_start.json").write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    for name in rounds[0]:
        values = sorted(one[name] for one in rounds)
        print(f"{name:45} {median(values):6.2f} s   [{values[0]:.2f}, {values[-1]:.2f}]")
    shares = sorted(one[EMPTY_PAINT] / one[PAINT] for one in rounds)
    print(f"of the first paint, the empty page's: {median(shares):.2f} [{shares[0]:.2f}, {shares[-1]:.2f}]")
    paint = median(one[PAINT] for one in rounds)
    print(f"bar: first useful paint <= {PAINT_BAR_S} s: {'held' if paint <= PAINT_BAR_S else 'NOT held'}")


def a_start() -> dict[str, float]:
    """Seconds of one start and of its first clicks."""
    with browser() as page:
        began = time.perf_counter()
        with started_app() as app:
            found = {"command to the page server's answer": until(began, lambda: answers(app))}
            page.goto(app.url)
            expect(page.get_by_role("group", name="Layers with their laziness score")).to_be_visible(timeout=RUN_MS)
            found[PAINT] = time.perf_counter() - began
            found["command to the backend's answer"] = until(began, lambda: backend_answers(app))
            found |= clicks(page, app)
    return found


def an_empty_start() -> dict[str, float]:
    """What Streamlit and the browser alone take."""
    with browser() as page:
        began = time.perf_counter()
        with started_app(script="benchmarks/empty_page.py") as app:
            until(began, lambda: answers(app))
            page.goto(app.url)
            expect(page.get_by_role("heading", name="Nothing but Streamlit")).to_be_visible(timeout=RUN_MS)
            return {EMPTY_PAINT: time.perf_counter() - began}


def clicks(page: Page, app: RunningApp) -> dict[str, float]:
    page.goto(f"{app.url}/compare?prompt=code&recent=252&tokens=8")
    run = page.get_by_role("button", name="Run the prompt", exact=True)
    expect(run).to_be_enabled(timeout=RUN_MS)
    began = time.perf_counter()
    run.click()
    compare = page.get_by_role("button", name="Run comparison")
    expect(compare).to_be_enabled(timeout=RUN_MS)
    ran = time.perf_counter() - began
    began = time.perf_counter()
    compare.click()
    expect(page.locator("[data-step]").first).to_be_visible(timeout=RUN_MS)
    first = time.perf_counter() - began
    return {"click on Run the prompt to its result": ran, "click on Run comparison to the first token": first}


def until(began: float, holds: Callable[[], bool]) -> float:
    while not holds():
        time.sleep(0.02)
    return time.perf_counter() - began


def answers(app: RunningApp) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{app.url}/_stcore/health", timeout=5).status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def backend_answers(app: RunningApp) -> bool:
    try:
        with app.client() as client:
            return client.health().pid > 0
    except LightTransferError:
        return False


if __name__ == "__main__":
    main()
