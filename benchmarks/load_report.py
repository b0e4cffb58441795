"""The load test's figures and checks, as a record and as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.bench_live_report import percentile
from benchmarks.load_checks import Memory
from benchmarks.load_clients import Tally
from benchmarks.load_phases import Pulse, Seen


def figures(name: str, seen: Seen, tally: Tally, pulse: Pulse, before: Memory, after: Memory) -> dict[str, Any]:
    ended = sum(
        after.gauges[name] - before.gauges.get(name, 0) for name in after.gauges if name.startswith("runs_ended_total")
    )
    return {
        "name": name,
        "seconds": seen.seconds,
        "requests": sum(tally.statuses.values()),
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "refusals": dict(sorted(seen.refusals.counted.items())),
        "answer_s": [statistics.median(tally.seconds), percentile(tally.seconds, 0.95)],
        "health_s": [statistics.median(pulse.seconds), percentile(pulse.seconds, 0.95), max(pulse.seconds)],
        "rerun_s": [statistics.median(seen.rerun_s), percentile(seen.rerun_s, 0.95)] if seen.rerun_s else [],
        "reruns": len(seen.rerun_s),
        "runs": ended,
        "runs_per_minute": 60 * ended / seen.seconds,
        "backend_nbytes": [before.backend_nbytes, after.backend_nbytes],
        "kept_nbytes": [before.kept_nbytes, after.kept_nbytes],
        "page_nbytes": [before.page_nbytes, after.page_nbytes],
    }


def markdown(found: dict[str, Any]) -> str:
    lines = [
        f"Embedded model, seed {found['seed']}. An answer's time is until its first byte. Visits run pages over "
        "websockets, without browsers.\n"
    ]
    names = [phase["name"] for phase in found["phases"]]
    lines += [f"| what | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for what, text in _ROWS.items():
        lines.append(f"| {what} | {' | '.join(text(phase) for phase in found['phases'])} |")
    lines += ["", "| answered in trouble | times |", "| --- | --- |"]
    lines += [f"| {name} | {count} |" for name, count in found["phases"][-1]["refusals"].items()]
    lines += ["", "| check | | found |", "| --- | --- | --- |"]
    for check in found["checks"]:
        told = check["found"].replace("|", "\\|")
        lines.append(f"| {check['name']} | {'held' if check['held'] else 'FAILED'} | {told} |")
    return "\n".join(lines) + "\n"


def _milliseconds(values: list[float]) -> str:
    return ", ".join(f"{1e3 * value:,.0f}" for value in values) + " ms" if values else "none"


def _megabytes(values: list[float]) -> str:
    return f"{values[0] / 1e6:,.0f} to {values[1] / 1e6:,.0f} MB"


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "requests": lambda one: f"{one['requests']:,} in {one['seconds']:.0f} s",
    "statuses": lambda one: ", ".join(f"{status}: {count}" for status, count in one["statuses"].items()),
    "answers, median and p95": lambda one: _milliseconds(one["answer_s"]),
    "/health, median, p95, longest": lambda one: _milliseconds(one["health_s"]),
    "page scripts, median and p95": lambda one: f"{one['reruns']} runs, {_milliseconds(one['rerun_s'])}",
    "runs ended": lambda one: f"{one['runs']:.0f}, {one['runs_per_minute']:.1f} a minute",
    "backend process, before and after": lambda one: _megabytes(one["backend_nbytes"]),
    "kept results and records": lambda one: _megabytes(one["kept_nbytes"]),
    "page server process": lambda one: _megabytes(one["page_nbytes"]),
}
