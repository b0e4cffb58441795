"""What looking at attention costs in a real browser, beside BertViz: `python -m benchmarks.bench_attention`.

Starts the app, runs a prompt of 8,128 tokens on the embedded model, and drives the explorer in headless Chromium:

* the overview of a head that was not looked at before, from the choice to the last tile painted;
* an exact tile and the exact value under the cursor, warm, as the browser waits for them;
* the bytes of a view; and what the browser's heap and the backend's memory do over 200 random views.

Then BertViz (in a folder of its own, from the package index) builds `head_view` and `model_view` of the same model from
`output_attentions=True` at short lengths: seconds and bytes of HTML, beside what ours sends for the same prompt.

Writes `bench_attention.json` and `bench_attention.md` into `results/`. `--quick` runs a short prompt and few views.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.prompt import demo_text
from benchmarks.running_app import running_app
from benchmarks.watching import chromium
from lighttransfer_core.models import load_model

ROOT = Path(__file__).resolve().parent.parent
BERTVIZ = ("bertviz==1.4.1", "ipython", "boto3")
LENGTHS = (16, 32, 64, 128, 256, 512)
RUN_MS = 900_000

FETCH = """async ({ what, queries }) => {
  const seen = performance.getEntriesByType("resource").map((entry) => entry.name)
  const base = seen.findLast((name) => name.includes("/map/tokens")).replace(/tokens.*/, "")
  const times = []
  for (const query of queries) {
    const began = performance.now()
    await (await fetch(`${base}${what}?${new URLSearchParams(query)}`, { cache: "no-store" })).arrayBuffer()
    times.push(performance.now() - began)
  }
  return times
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short prompt and few views")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    given = parser.parse_args()
    tokens, views, lengths = (1024, 20, LENGTHS[:3]) if given.quick else (8128, 200, LENGTHS)
    lm = load_model("smollm2", device="cpu", dtype="float32")
    assert lm.tokenizer is not None
    texts = {n: lm.tokenizer.decode(lm.tokenizer(demo_text()).input_ids[:n]) for n in (*lengths, tokens)}
    del lm
    with running_app() as app, browser() as page:
        address = app.url
        found = {"tokens": tokens, **explore(page, address, texts[tokens], views)}
        ours = {n: our_bytes(page, address, texts[n]) for n in lengths}
    theirs = bertviz(lengths)
    found["bertviz"] = [{"tokens": n, "ours_bytes": ours[n], **theirs[str(n)]} for n in lengths]
    given.output.mkdir(parents=True, exist_ok=True)
    name = "bench_attention_quick" if given.quick else "bench_attention"
    (given.output / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = markdown(found)
    (given.output / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


@contextmanager
def browser() -> Iterator[Page]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--disable-gpu"])
        yield opened.new_page(viewport={"width": 1440, "height": 900})
        opened.close()


def open_map(page: Page, address: str, text: str, view: str = "") -> None:
    """The explorer on a text of one's own, run if need be."""
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(f"{address}/api/prompts", body, {"Content-Type": "application/json"})
    prompt = json.loads(urllib.request.urlopen(request).read())["prompt"]
    page.goto(f"{address}/attention?prompt={prompt}&rendering=raw&map={view}")
    button = page.get_by_role("button", name="Run the prompt", exact=True)
    expect(button).to_be_enabled(timeout=RUN_MS)
    button.click()
    page.locator("canvas.map").wait_for(timeout=RUN_MS)
    complete(page)


def complete(page: Page) -> None:
    expect(page.locator("canvas.map")).to_have_attribute("data-complete", "true", timeout=RUN_MS)


def explore(page: Page, address: str, text: str, views: int) -> dict[str, Any]:
    open_map(page, address, text)
    tokens = int(page.locator("canvas.map").get_attribute("data-tokens") or 0)
    overviews = [overview(page, head) for head in range(1, 8)]
    chance = random.Random(0)
    places = [(chance.randrange(tokens // 256), chance.randrange(tokens // 256)) for _ in range(60)]
    tiles = [{"view": "3.2", "reduce": "max", "level": 0, "row": max(place), "col": min(place)} for place in places]
    pairs = [sorted(chance.sample(range(tokens), 2), reverse=True) for _ in range(60)]
    values = [{"view": "3.2", "reduce": "max", "level": 0, "row": q, "col": k} for q, k in pairs]
    heap = [memory(page, address)]
    for _ in range(views):
        random_view(page, tokens, chance)
    heap.append(memory(page, address))
    return {
        "overview_s": overviews,
        "tile_ms": page.evaluate(FETCH, {"what": "tile", "queries": tiles}),
        "value_ms": page.evaluate(FETCH, {"what": "value", "queries": values}),
        "overview_bytes": view_bytes(page, lambda: select(page, "Head", "8")),
        "zoomed_bytes": view_bytes(page, lambda: zoom(page)),
        "views": views,
        "memory": heap,
    }


def select(page: Page, name: str, value: str) -> None:
    page.get_by_label(name, exact=True).select_option(value)
    complete(page)


def overview(page: Page, head: int) -> float:
    """Seconds from the choice of a head to its last tile on screen."""
    began = time.perf_counter()
    select(page, "Head", str(head))
    return time.perf_counter() - began


def zoom(page: Page) -> None:
    box = page.locator("canvas.map").bounding_box()
    assert box
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.6 * box["height"])
    for _ in range(30):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(20)
    complete(page)


def random_view(page: Page, tokens: int, chance: random.Random) -> None:
    span = int(2 ** chance.uniform(5, 13))
    top, left = chance.randrange(tokens), chance.randrange(tokens)
    state = f"view.{chance.randrange(30)}.{chance.randrange(9)}_box.{top}.{min(left, top)}.{span}"
    field = page.get_by_label("View", exact=True)
    if not field.is_visible():
        page.get_by_text("This view as text").click()
    field.fill(state)
    field.press("Enter")
    page.wait_for_function("state => location.href.includes(state.split('_')[0])", arg=state)
    complete(page)


def view_bytes(page: Page, act: Any) -> int:
    """Bytes that the network brought for what an action shows."""
    received: list[int] = []

    def count(response: Any) -> None:
        if "/map/" in response.url:
            received.append(int(response.headers.get("content-length") or len(response.body())))

    page.on("response", count)
    act()
    page.wait_for_timeout(300)
    page.remove_listener("response", count)
    return sum(received)


def memory(page: Page, address: str) -> dict[str, int]:
    """Bytes: the page's JavaScript heap after a collection, and the backend's process."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    usage = session.send("Runtime.getHeapUsage")
    heap = usage["usedSize"] + usage.get("backingStorageSize", 0)
    report = json.loads(urllib.request.urlopen(f"{address}/api/memory").read())
    return {"browser_heap": int(heap), "backend": int(report["process"])}


def our_bytes(page: Page, address: str, text: str) -> int:
    """What the map routes send for the first view of a short prompt."""
    return view_bytes(page, lambda: open_map(page, address, text))


def bertviz(lengths: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """BertViz in a folder of its own; see `benchmarks.bertviz_side`."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", folder]
        subprocess.run([*pip, "--no-deps", BERTVIZ[0]], check=True)
        subprocess.run([*pip, *BERTVIZ[1:]], check=True)
        command = [sys.executable, "-m", "benchmarks.bertviz_side", folder, *map(str, lengths)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def markdown(found: dict[str, Any]) -> str:
    middle = statistics.median
    before, after = found["memory"]
    lines = [
        f"{found['tokens']:,} tokens, embedded model, headless Chromium on the same machine. Medians.\n",
        "| what | measured | bar |",
        "| --- | --- | --- |",
        f"| overview of a head, first look | {middle(found['overview_s']):.2f} s | <= 1 s |",
        f"| exact 256 x 256 tile, as the browser waits | {middle(found['tile_ms']):.0f} ms | <= 50 ms |",
        f"| exact value under the cursor, as the browser waits | {middle(found['value_ms']):.0f} ms | <= 30 ms |",
        f"| bytes of the overview | {found['overview_bytes'] / 1e3:,.0f} kB | < 1 MB |",
        f"| bytes of zooming to single pairs | {found['zoomed_bytes'] / 1e3:,.0f} kB | |",
        f"| browser heap before and after {found['views']} random views | "
        f"{before['browser_heap'] / 1e6:.0f} MB, {after['browser_heap'] / 1e6:.0f} MB | |",
        f"| backend process before and after | {before['backend'] / 1e6:,.0f} MB, {after['backend'] / 1e6:,.0f} MB | |",
        "",
        "| tokens | BertViz head_view | BertViz model_view | ours, first view |",
        "| --- | --- | --- | --- |",
    ]
    for row in found["bertviz"]:
        views = (f"{row[f'{view}_s']:.2f} s, {row[f'{view}_bytes'] / 1e6:,.2f} MB" for view in ("head", "model"))
        lines.append(f"| {row['tokens']} | {' | '.join(views)} | {row['ours_bytes'] / 1e3:,.0f} kB |")
    dearer = [row["tokens"] for row in found["bertviz"] if row["ours_bytes"] > row["head_bytes"]]
    lines += ["", f"Ours sends more than head_view at: {dearer or 'none of these lengths'}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
