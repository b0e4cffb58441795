"""What it costs the model that people watch: `python -m benchmarks.bench_live`.

Starts the app with its embedded backend and decodes one comparison (the full model beside half the layers lazy) again
and again, each time watched differently; the sides take turns in rounds:

* headless: nobody reads the events, and the run's state is asked for once in two seconds;
* one client: a typed client reads the event stream through the page server;
* a crowd: twenty visits, each running a page's script every five seconds over the front end's own websocket protocol
  (no browser draws them), and a client that asks for ten map tiles a second of the kept prefill;
* a browser: the Compare page in headless Chromium on the same processor, which clicks, follows and draws the run.

Tokens per second are those of one lane, by the times that the worker gave the first and the last step. The browser's
side also says what the page server computed meanwhile, and how old each step was when the browser had it.

Writes `bench_live.json` and `bench_live.md` into `results/`. `--quick` decodes 48 tokens in one round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, sync_playwright

from benchmarks.bench_live_report import markdown
from benchmarks.running_app import RunningApp, running_app
from benchmarks.visits import Crowd, click
from benchmarks.watching import Panning, chromium, watch
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.service.client import BackendClient
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from lighttransfer_core.types import ConversionPlan, Window
from lighttransfer_core.version import __version__
from pages.parts.defaults import default_recipe
from pages.parts.prompts import demo_prompts

# its answer does not end before the last token that is asked for
PROMPT = "code"
WINDOW = Window(sink=4, recent=124)
LAZY = tuple(range(0, 30, 2))
VISITS = 20
EVERY_S = 5.0
TILES_PER_S = 10.0
_POLL_S = 2.0


@dataclass(frozen=True)
class Bench:
    """The app, a client, and the kept prefill that every comparison starts from."""

    app: RunningApp
    client: BackendClient
    prefill: PrefillSpec
    prefill_token: str
    prompt_tokens: int
    new_tokens: int

    def query(self, copy: str = "") -> str:
        """The address of the same choices in the pages."""
        plan = format_layers(LAZY)
        text = f"prompt={PROMPT}&rendering=raw&recent={WINDOW.recent}&plan={plan}&tokens={self.new_tokens}"
        return f"{text}&copy={copy}" if copy else text

    def start(self) -> str:
        """A comparison that nobody else asked for; its token."""
        lane = LaneSettings(ConversionPlan(LAZY, WINDOW))
        spec = CompareSpec(self.prefill, (lane,), self.new_tokens, copy=secrets.token_hex(4))
        return self.client.start(spec).token

    def rate(self, token: str) -> float:
        """Tokens per second of a run that is over."""
        times = [event["at"] for event in self.client.events(token) if event["kind"] == "step"]
        if len(times) != self.new_tokens:
            raise RuntimeError(f"the run decoded {len(times)} tokens, not {self.new_tokens}")
        return float((len(times) - 1) / (times[-1] - times[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="48 tokens, one round")
    parser.add_argument("--tokens", type=int, help="new tokens of each comparison (400)")
    parser.add_argument("--rounds", type=int, help="how often each side takes its turn (3)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    given = parser.parse_args()
    new_tokens = given.tokens or (48 if given.quick else 400)
    found = measure(new_tokens, given.rounds or (1 if given.quick else 3))
    given.output.mkdir(parents=True, exist_ok=True)
    name = "bench_live_quick" if given.quick else "bench_live"
    (given.output / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = markdown(found)
    (given.output / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def measure(new_tokens: int, rounds: int) -> dict[str, Any]:
    load_average = os.getloadavg()[0]
    with running_app() as app, app.client() as client:
        bench = prepare(app, client, new_tokens)
        measured = in_rounds(bench, rounds)
    return {
        "made": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": psutil.cpu_count(),
            "load_average": load_average,
            "version": __version__,
        },
        "prompt_tokens": bench.prompt_tokens,
        "new_tokens": new_tokens,
        "visits": VISITS,
        "every_s": EVERY_S,
        "rounds": measured,
    }


def in_rounds(bench: Bench, rounds: int) -> dict[str, list[dict[str, Any]]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--disable-gpu"])
        sides: dict[str, Callable[[], dict[str, Any]]] = {
            "headless": lambda: headless(bench),
            "one client": lambda: one_client(bench),
            "a crowd": lambda: crowd(bench),
            "a browser": lambda: in_browser(bench, browser),
        }
        headless(bench)  # the first run allocates what the later ones find there
        names = list(sides)
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                measured[name].append(sides[name]())
                print(f"round {number + 1}, {name}: {measured[name][-1]['rate']:.2f} tokens/s", flush=True)
        browser.close()
    return measured


def prepare(app: RunningApp, client: BackendClient, new_tokens: int) -> Bench:
    """Loads the model, makes the prefill, and lets the pages know of it."""
    prompt = demo_prompts()[PROMPT]
    recipe = replace(default_recipe(), prompt=prompt, rendering="raw", window=WINDOW)
    client.put_prompt(prompt.text or "")
    spec = recipe.prefill_spec()
    token = client.start(spec).token
    made = client.wait(token)
    bench = Bench(app, client, spec, token, made["num_tokens"], new_tokens)
    click(app.url, bench.query(), "compare", "Run the prompt")
    ended = app.gauges()['runs_ended_total{kind="prefill",state="done"}']
    if ended != 1:
        raise RuntimeError("the pages ask for another prefill than this benchmark does")
    return bench


def headless(bench: Bench) -> dict[str, Any]:
    token = bench.start()
    _until_over(bench, token)
    return {"rate": bench.rate(token)}


def one_client(bench: Bench) -> dict[str, Any]:
    token = bench.start()
    for _event in bench.client.events(token):
        pass
    return {"rate": bench.rate(token)}


def crowd(bench: Bench) -> dict[str, Any]:
    panning = Panning(bench.app.api, bench.prefill_token, bench.prompt_tokens, TILES_PER_S)
    with Crowd(bench.app.url, bench.query(), VISITS, EVERY_S) as visits, panning:
        began, cpu_s = time.perf_counter(), bench.app.page_cpu_s()
        token = bench.start()
        _until_over(bench, token)
        took, cpu_s = time.perf_counter() - began, bench.app.page_cpu_s() - cpu_s
    if visits.failures or panning.failures:
        raise RuntimeError(f"the crowd met trouble: {[*visits.failures, *panning.failures][0]}")
    return {
        "rate": bench.rate(token),
        "reruns": len(visits.seconds),
        "rerun_s": visits.seconds,
        "tiles": len(panning.seconds),
        "tile_s": panning.seconds,
        "seconds": took,
        "page_cpu_s": cpu_s,
    }


def in_browser(bench: Bench, browser: Browser) -> dict[str, Any]:
    return watch(bench.app, browser, bench.query(secrets.token_hex(4)), bench.new_tokens)


def _until_over(bench: Bench, token: str) -> None:
    while not (status := bench.client.status(token)).finished:
        time.sleep(_POLL_S)
    if status.state != "done":
        raise RuntimeError(f"the run ended as {status.state}: {status.error}")


if __name__ == "__main__":
    main()
