"""What must hold after each phase of the load test; every check names itself and says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.load_clients import Answers, Followed, answers, difference
from benchmarks.load_phases import Pulse, Seen
from benchmarks.load_trouble import DOOMED, Refusals

KL_NATS = 1e-4
"""Chunks of a prefill are sized by time, so sums are taken in another order than in a lone run."""

MEMORY_NBYTES = 250e6
"""How much more the backend may hold than what it says that it keeps: allocators, threads, records."""

FILES = 20
"""Connections that the page server may keep for the next request."""

MISDEEDS = (
    *("garbage body", "garbage token", "token of another", "too many new tokens", "unknown text", "model by path"),
    *("text too long", "body too large", "body of unknown length", "half a request", "pause what others follow"),
    "visit that is cut off",
)


@dataclass(frozen=True)
class Memory:
    """Bytes that the two processes hold, the backend's open files and connections, and its gauges."""

    backend_nbytes: int
    page_nbytes: int
    backend_files: int
    gauges: dict[str, float]

    @property
    def kept_nbytes(self) -> float:
        """What the backend keeps on purpose: prefills and lanes, records, prompts."""
        return sum(self.gauges[name] for name in ("results_bytes", "records_bytes", "prompts_bytes"))

    def ended(self, kind: str, state: str) -> int:
        return int(self.gauges.get(f'runs_ended_total{{kind="{kind}",state="{state}"}}', 0))


@dataclass
class Checks:
    """What was checked, whether it held, and what was found."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, held: bool, found: str) -> None:
        self.rows.append({"name": name, "held": bool(held), "found": found})

    def all_of(self, name: str, runs: list[Followed], holds: Callable[[Followed], bool]) -> None:
        """Holds of every one, and there are some."""
        wrong = [run for run in runs if not holds(run)]
        why = f"; the first of the others: {_story(wrong[0])}" if wrong else ""
        self.add(name, bool(runs) and not wrong, f"{len(runs) - len(wrong)} of {len(runs)}{why}")


def check_phase(checks: Checks, phase: str, seen: Seen, lone: list[Answers]) -> None:
    """Whether every client got what a lone run gives, in the order of asking, from one prefill."""
    everyone = [*seen.prefills, *seen.shared, *seen.queued]
    checks.all_of(f"{phase}: every client saw every event of its run once, to its end", everyone, lambda run: run.whole)
    tokens = {run.token for run in everyone}
    checks.add(f"{phase}: every request has a token of its own", len(tokens) == len(everyone), f"{len(tokens)} tokens")
    pairs = list(zip(seen.queued, lone, strict=False)) + [(run, lone[-1]) for run in seen.shared]
    gaps = [None if run.result is None else difference(answers(run.result), wanted) for run, wanted in pairs]
    apart = [gap for gap in gaps if gap is not None]
    checks.add(
        f"{phase}: every comparison has the tokens of its lone run, and its KL to {KL_NATS} nats",
        len(apart) == len(gaps) and bool(gaps) and max(apart, default=1.0) <= KL_NATS,
        f"tokens equal in {len(apart)} of {len(gaps)}, KL at most {max(apart, default=0.0):.1e} nats apart",
    )
    made = [run for run in seen.prefills if run.result is not None and run.result["reused"] is False]
    first = [one for run in seen.shared for one in run.events if one["kind"] == "begin"]
    checks.add(
        f"{phase}: all who opened the address share one prefill",
        len(made) == len(seen.prefills) and bool(first) and all(one["reused"] for one in first),
        f"{len(made)} of {len(seen.prefills)} prefill requests tell of the same run, "
        f"{sum(one['reused'] for one in first)} of {len(first)} comparisons found its prefill",
    )
    checks.all_of(f"{phase}: places told in line only fall", seen.queued, lambda run: _falls(run.places))
    checks.add(
        f"{phase}: some had to wait in line",
        sum(bool(run.places) for run in seen.queued) >= 3,
        f"places told: {[run.places for run in seen.queued]}",
    )
    began = [run.began_at for run in seen.queued]
    checks.add(
        f"{phase}: runs began in the order in which they were asked for",
        all(began) and began == sorted(began),
        f"after {[round(at - began[0], 2) for at in began]} s",
    )


def check_ends(checks: Checks, phase: str, seen: Seen, pulse: Pulse, before: Memory, after: Memory) -> None:
    """Whether the app was there throughout, counted every run, and holds no more than it says."""
    checks.add(
        f"{phase}: /health answered throughout",
        len(pulse.seconds) > 10 and not pulse.failures,
        f"{len(pulse.seconds)} times, {len(pulse.failures)} failures {pulse.failures[:1]}",
    )
    checks.add(
        f"{phase}: pages ran without an exception",
        len(seen.rerun_s) > 0 and not seen.visit_failures,
        f"{len(seen.rerun_s)} script runs, failures: {seen.visit_failures[:1]}",
    )
    done = {kind: after.ended(kind, "done") - before.ended(kind, "done") for kind in ("prefill", "compare")}
    expected = {"prefill": 1, "compare": 1 + len(seen.queued) + seen.given_up.count("done")}
    checks.add(f"{phase}: equal requests were one run each", done == expected, f"{done} runs done, expected {expected}")
    left = {name: after.gauges[name] for name in ("runs_live", "runs_waiting", "event_readers")}
    checks.add(f"{phase}: no run and no reader is left", not any(left.values()), f"{left}")
    grown = after.backend_nbytes - before.backend_nbytes
    more = grown - (after.kept_nbytes - before.kept_nbytes)
    checks.add(
        f"{phase}: the backend holds no more than it keeps on purpose, to {MEMORY_NBYTES / 1e6:.0f} MB",
        more <= MEMORY_NBYTES,
        f"grew by {grown / 1e6:.0f} MB, of which {(grown - more) / 1e6:.0f} MB are kept results and records",
    )
    checks.add(
        f"{phase}: the backend's connections are closed again, to {FILES} that the page server keeps",
        after.backend_files <= before.backend_files + FILES,
        f"{before.backend_files} files and connections before, {after.backend_files} after",
    )
    same = before.gauges["weights_bytes"] == after.gauges["weights_bytes"]
    within = after.gauges["results_bytes"] + after.gauges["weights_bytes"] <= after.gauges["budget_bytes"]
    checks.add(f"{phase}: the model was loaded once, and all fits the budget", same and within, f"{same}, {within}")


def check_trouble(checks: Checks, phase: str, seen: Seen, before: Memory, after: Memory) -> None:
    """Whether each misdeed was answered rightly, and each run that had to end early did."""
    refusals: Refusals = seen.refusals
    checks.add(
        f"{phase}: every misdeed was answered as it should be",
        not refusals.wrong,
        f"{sum(refusals.counted.values())} answers, {len(refusals.wrong)} wrong {refusals.wrong[:2]}",
    )
    missing = [misdeed for misdeed in MISDEEDS if not refusals.seen(misdeed)]
    flood = {status: refusals.counted[f"too many requests: {status}"] for status in (200, 429)}
    checks.add(f"{phase}: every misdeed happened", not missing, f"missing: {missing}")
    checks.add(f"{phase}: a flood from one address is cut off, not at once", all(flood.values()), f"answers {flood}")
    raised = {name: name for name in DOOMED}
    checks.add(f"{phase}: runs that raise end with their own error", seen.raised == raised, f"{seen.raised}")
    ended = {
        state: sum(after.ended(kind, state) - before.ended(kind, state) for kind in ("prefill", "compare"))
        for state in ("failed", "cancelled")
    }
    expected = {"failed": len(raised), "cancelled": seen.given_up.count("cancelled")}
    checks.add(f"{phase}: failed and given-up runs are counted as such", ended == expected, f"{ended}, of {expected}")
    checks.add(f"{phase}: some were given up", expected["cancelled"] > 0, f"{seen.given_up}")


def _falls(places: list[int]) -> bool:
    return all(earlier > later for earlier, later in pairwise(places))


def _story(run: Followed) -> str:
    kinds = [event["kind"] for event in run.events]
    return f"places {run.places}, {len(kinds)} events ending in {kinds[-1:]}, {run.error or 'no error'}"
