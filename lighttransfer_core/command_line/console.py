"""Tables and progress for the command line. Knows the plain data and no model."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from lighttransfer_core.events import Comparison, LaneStep
from lighttransfer_core.frontier.summary import NO_NUMBER, lead_text
from lighttransfer_core.frontier.tables import TableRow
from lighttransfer_core.models.catalogue import CatalogueEntry
from lighttransfer_core.types import ConversionPlan, LayerScores, ModelSpec


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, so that what a command prints stays clean; nothing where nobody looks."""
    error_console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda message, fraction: bar.update(task, description=message, completed=fraction)


def print_json(value: Any) -> None:
    """One line; what is no finite number is null, since JSON has no other word for it."""
    sys.stdout.write(json.dumps(_finite(value), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_models(entries: Iterable[CatalogueEntry]) -> None:
    table = Table(title="Models")
    table.add_column("name", no_wrap=True)
    for heading in ("parameters", "layers", "positions", "KV bytes per token"):
        table.add_column(heading, justify="right")
    table.add_column("licence")
    for entry in entries:
        table.add_row(
            Text(entry.name),
            f"{entry.parameters / 1e6:,.0f} M",
            str(entry.layers),
            f"{entry.max_positions:,}",
            f"{entry.kv_bytes_per_token:,}",
            entry.licence + (" (gated)" if entry.gated else ""),
        )
    Console().print(table)


def show_tasks(found: Iterable[Mapping[str, Any]]) -> None:
    table = Table(title="Tasks")
    table.add_column("name", no_wrap=True)
    table.add_column("what it asks")
    table.add_column("texts here")
    for task in found:
        table.add_row(Text(task["name"]), Text(task["description"]), "yes" if task["ready"] else "no: --fetch")
    Console().print(table)


def show_scores(scores: LayerScores, spec: ModelSpec) -> None:
    """The layers, laziest first; in their own order where the prompt says nothing."""
    window = scores.window
    title = f"{scores.metric} of {spec.name}, {scores.num_tokens:,} tokens, window {window.sink} + {window.recent}"
    table = Table("rank", "layer", scores.metric, "sink", "recent", "rest", title=Text(title))
    ranking = scores.ranking() if scores.informative else list(range(spec.num_layers))
    for rank, layer in enumerate(ranking, start=1):
        shares = (scores.values[layer], scores.sink[layer], scores.recent[layer], scores.rest[layer])
        table.add_row(str(rank) if scores.informative else "-", str(layer), *(f"{share:z.4f}" for share in shares))
    Console().print(table)


def show_comparison(summary: Comparison, steps: list[LaneStep], plan: ConversionPlan) -> None:
    """Both texts, and what sets the lanes apart."""
    console = Console()
    names = ("full model", f"{len(plan.lazy_layers)} lazy")
    lanes = {name: [s.event for s in steps if s.lane == lane and s.event] for lane, name in enumerate(names)}
    table = Table("lane", "tokens", "KV bytes at the end", "median latency per token", title="Comparison")
    for name, events in lanes.items():
        latency = statistics.median(event.latency_s for event in events[1:] or events)
        table.add_row(name, str(len(events)), f"{sum(events[-1].kv_bytes):,}", f"{1000 * latency:.1f} ms")
    for name, events in lanes.items():
        console.rule(name)
        console.print(Text("".join(event.text for event in events)))
    console.print(table)
    parts = "nowhere" if summary.first_divergence is None else f"at token {summary.first_divergence}"
    mean_kl = float(summary.kl.mean()) if summary.kl.size else 0.0
    console.print(f"They part {parts}; agreement {summary.agreement:.1%}; mean KL {mean_kl:.4f} nats per token.")


def show_frontier(rows: Iterable[TableRow], beside: str | None) -> None:
    """Every ranking's score, with its 95% interval, and its lead over the one `beside`; a table for each sweep."""
    columns = ["task", "tokens", "window", "question", "ranking", "lazy", "prompts", "score", "of the full model"]
    if beside is not None:
        columns.append(f"over {beside}")
    shown = Console(width=140 if beside is None else 170, markup=False)
    for sweep, of_sweep in itertools.groupby(rows, key=lambda row: row.sweep):
        table = Table(*columns, title=sweep)
        for row in of_sweep:
            cells = [row.task, f"{row.length:,}", row.window, row.question, row.ranking, f"{row.share:.0%}"]
            cells += [str(row.value.count), row.value.text, NO_NUMBER if row.ratio is None else row.ratio.text]
            if beside is not None:
                cells.append(lead_text(row.lead, row.value.count))
            table.add_row(*cells)
        shown.print(table)
