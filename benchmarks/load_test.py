"""Whether the app serves a room full of people: `python -m benchmarks.load_test`; ends with status 1 where it does not.

First eight comparisons and a shared one run alone, each after the other, in an app of their own: that is what they must
give. Then a fresh app is asked for everything at once (phase 1): forty clients open one address in the same moment,
twenty visits run pages' scripts and follow the shared run's events, and the eight different comparisons wait in line.
In phase 2 the same is asked for once more, from prefills that nobody has made yet, while other clients disconnect,
send garbage, guess tokens, ask for too much, cancel, and start runs that raise, one of them in the middle of decoding.
All of it is drawn from one seed.

Every check is printed with what it found. Writes `load_test.json` and `load_test.md` into `results/`. `--quick` asks
for short answers and fewer misdeeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.load_checks import Checks, Memory, check_ends, check_phase, check_trouble
from benchmarks.load_clients import Answers, Clients, Tally, Work, answers, work
from benchmarks.load_phases import Pulse, amid_trouble, everybody, store_texts
from benchmarks.load_report import figures, markdown
from benchmarks.running_app import RunningApp, running_app

SEED = 20_260_101
_FRESH_ROWS = 64
_SETTLE_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short answers, fewer misdeeds")
    parser.add_argument("--tokens", type=int, help="new tokens of each answer (32)")
    parser.add_argument("--seed", type=int, default=SEED, help="of everything that is drawn by chance")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    given = parser.parse_args()
    asked = work(given.tokens or (8 if given.quick else 32))
    found = run(asked, given.seed, deeds=12 if given.quick else 60)
    given.output.mkdir(parents=True, exist_ok=True)
    name = "load_test_quick" if given.quick else "load_test"
    (given.output / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = markdown(found)
    (given.output / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
    missed = [check["name"] for check in found["checks"] if not check["held"]]
    for name in missed:
        print(f"FAILED: {name}", file=sys.stderr)
    return 1 if missed else 0


def run(asked: Work, seed: int, deeds: int) -> dict[str, Any]:
    checks, phases = Checks(), []
    with running_app() as app:
        lone = run_alone(app, asked)
    checks.add("lone answers differ from each other, so that mixing them up would show", *_distinct(lone))
    with running_app("benchmarks.failing_backend") as app:
        warm_up(app, asked)
        for number, wanted in enumerate((asked, asked.fresh(_FRESH_ROWS)), start=1):
            name, tally = f"phase {number}", Tally()
            clients, before = Clients(app, tally), memory(app)
            with Pulse(clients) as pulse:
                seen = everybody(clients, wanted) if number == 1 else amid_trouble(clients, wanted, seed, deeds)
            settle(app)
            after = memory(app)
            check_phase(checks, name, seen, lone)
            check_ends(checks, name, seen, pulse, before, after)
            if number == 2:
                check_trouble(checks, name, seen, before, after)
            phases.append(figures(name, seen, tally, pulse, before, after))
        checks.add("by the backend's own log, no recipe was computed twice", *_logged(app))
    return {"seed": seed, "phases": phases, "checks": checks.rows}


def run_alone(app: RunningApp, asked: Work) -> list[Answers]:
    """What each of the eight gives where nothing else runs, and last the shared one."""
    clients = Clients(app, Tally())
    store_texts(clients, asked)
    with clients.client() as client:
        return [answers(client.wait(client.start(spec).token)) for spec in (*asked.queued, asked.compare)]


def warm_up(app: RunningApp, asked: Work) -> None:
    """Loads the model and lets it decode once, so that what stays for good is there before memory is read."""
    clients = Clients(app, Tally())
    store_texts(clients, asked)
    spec = asked.queued[0]
    with clients.client() as client:
        client.wait(client.start(replace(spec, prefill=replace(spec.prefill, query_rows=32))).token)
    settle(app)


def memory(app: RunningApp) -> Memory:
    gauges = app.gauges()
    backend = app.backend()
    return Memory(backend.memory_info().rss, app.process.memory_info().rss, backend.num_fds(), gauges)


def settle(app: RunningApp) -> None:
    """Waits until no run is live and no stream open, or for a minute."""
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        gauges = app.gauges()
        if not gauges["runs_live"] and not gauges["event_readers"]:
            return
        time.sleep(0.2)


def _distinct(lone: list[Answers]) -> tuple[bool, str]:
    texts = [json.dumps(one["a"][0]) for one in lone]
    return len(set(texts)) == len(texts), f"{len(set(texts))} different answers of {len(texts)}"


def _logged(app: RunningApp) -> tuple[bool, str]:
    """The log has a line for each run that ended, with the recipe's identity."""
    lines = [line[line.index("{") :] for line in app.log.read_text().splitlines() if '"requests":' in line]
    done = [one["run"] for one in map(json.loads, lines) if one["state"] == "done"]
    counted = sum(count for name, count in app.gauges().items() if name.startswith("runs_ended") and '"done"' in name)
    found = f"{len(done)} runs done by the log, {counted:.0f} by the counters, of {len(set(done))} recipes"
    return bool(done) and len(set(done)) == len(done) == counted, found


if __name__ == "__main__":
    sys.exit(main())
