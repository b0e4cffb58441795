"""Who watches a run in the live benchmark beside typed clients: a map that is panned, and a real browser."""

from __future__ import annotations

import bisect
import os
import random
import re
import shutil
import time
from typing import Any

import httpx2
from playwright.sync_api import Browser, expect

from benchmarks.beside import Beside
from benchmarks.running_app import RunningApp, address

RUN_MS = 1_800_000
_TILE = 256
_LAYERS, _HEADS = 30, 9
_IDLE_S = 4.0
_SAMPLE_S = 0.1

# Notes the age of each step as the page is given it, before the page's own code sees it. What happened before the
# stream was opened is told at once and says nothing.
_INIT = """(() => {
  window.stepsSeen = []
  const Plain = window.EventSource
  window.EventSource = class extends Plain {
    constructor(...given) {
      super(...given)
      const opened = Date.now()
      this.addEventListener("message", ({ data }) => {
        const now = Date.now()
        const event = JSON.parse(data)
        if (event.kind === "step") window.stepsSeen.push([event.at, now / 1000, 1000 * event.at > opened])
      })
    }
  }
})()"""


def chromium() -> str:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeError("no Chromium: install it, or set CHROMIUM to its path")
    return path


class Panning(Beside):
    """Asks for exact tiles of random heads at random places, `per_s` a second, in a thread of its own.

    Attributes
    ----------
    seconds
        How long each answer took.
    failures
        What went wrong, a sentence each.
    """

    def __init__(self, api: str, token: str, tokens: int, per_s: float, seed: int = 0) -> None:
        super().__init__()
        self._http = httpx2.Client(transport=address(99), timeout=60.0)
        self._url = f"{api}/runs/{token}/map/tile"
        self._tiles = -(-tokens // _TILE)
        self._per_s = per_s
        self._chance = random.Random(seed)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def __exit__(self, *_exc: object) -> None:
        super().__exit__()
        self._http.close()

    def work(self) -> None:
        while not self.leaving.is_set():
            row = self._chance.randrange(self._tiles)
            view = f"{self._chance.randrange(_LAYERS)}.{self._chance.randrange(_HEADS)}"
            place: dict[str, str | int] = {"view": view, "level": 0, "row": row, "col": self._chance.randrange(row + 1)}
            began = time.perf_counter()
            answer = self._http.get(self._url, params=place)
            took = time.perf_counter() - began
            if answer.status_code != 200:
                self.failures.append(f"a tile was answered {answer.status_code}: {answer.text[:200]}")
                return
            self.seconds.append(took)
            self.leaving.wait(max(1 / self._per_s - took, 0.0))


class _Sampled(Beside):
    """What a process has computed, over time."""

    def __init__(self, app: RunningApp) -> None:
        super().__init__()
        self._app = app
        self._times: list[float] = []
        self._cpu_s: list[float] = []

    def between(self, first: float, last: float) -> float:
        """Processor seconds between two moments of the wall clock, to the next sample on either side."""
        top = len(self._times) - 1
        begin, end = (min(bisect.bisect_left(self._times, moment), top) for moment in (first, last))
        return self._cpu_s[end] - self._cpu_s[begin]

    def work(self) -> None:
        while True:
            self._times.append(time.time())
            self._cpu_s.append(self._app.page_cpu_s())
            if self.leaving.wait(_SAMPLE_S):
                return


def watch(app: RunningApp, browser: Browser, query: str, new_tokens: int) -> dict[str, Any]:
    """One comparison on the Compare page, from the click to the finished charts.

    `display_cpu_s` is what the page server computed from the first step to the last, and `click_to_end_cpu_s` from the
    click until the page had settled, each without what it computes in that time with the same page open and idle.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(_INIT)
    page = context.new_page()
    page.goto(f"{app.url}/compare?{query}")
    button = page.get_by_role("button", name="Run comparison")
    expect(button).to_be_enabled(timeout=120_000)
    time.sleep(_IDLE_S / 2)
    with _Sampled(app) as sampled:
        idle_from = time.time()
        time.sleep(_IDLE_S)
        clicked = time.time()
        button.click()
        expect(page.get_by_text(re.compile("Finished after"))).to_be_visible(timeout=RUN_MS)
        page.wait_for_timeout(2_000)
        settled = time.time()
    steps: list[list[Any]] = page.evaluate("window.stepsSeen")
    context.close()
    if len(steps) != new_tokens:
        raise RuntimeError(f"the browser was told of {len(steps)} steps, not {new_tokens}")
    first, last = steps[0][0], steps[-1][0]
    idle = sampled.between(idle_from, clicked) / (clicked - idle_from)
    return {
        "rate": (len(steps) - 1) / (last - first),
        "latency_s": [seen - at for at, seen, live in steps if live],
        "idle_cpu_per_s": idle,
        "display_s": last - first,
        "display_cpu_s": sampled.between(first, last) - idle * (last - first),
        "click_to_end_cpu_s": sampled.between(clicked, settled) - idle * (settled - clicked),
    }
