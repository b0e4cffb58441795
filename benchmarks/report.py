"""What a benchmark found, as JSON for machines and as Markdown tables for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import transformers

from lighttransfer_core.cost.bench_rows import Row
from lighttransfer_core.cost.benchmark import Benchmark, Machine, Part, processor_name
from lighttransfer_core.speed import threads_of
from lighttransfer_core.version import __version__
from viz.benchmark import bar_text, found_text, growth_text, met_text, ratio_text, time_text
from viz.units import bytes_text, rate_text, seconds_text


def machine_here(device: torch.device, bandwidth: float) -> Machine:
    """This machine, and how busy it is now."""
    return Machine(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        processor=processor_name(),
        threads=threads_of(device),
        bandwidth_bytes_per_s=bandwidth,
        load_average=os.getloadavg()[0],
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        python_version=platform.python_version(),
        version=__version__,
    )


def write(file: Path, found: Benchmark) -> None:
    """Writes the JSON, and the Markdown beside it; each appears with all of its text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"parts": [part.to_dict() for part in found.parts]}
    for target, text in ((file, json.dumps(record, indent=1) + "\n"), (file.with_suffix(".md"), markdown(found))):
        partial = target.with_name(f"{target.name}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)


def markdown(found: Benchmark) -> str:
    """Bars and peers first, then every part with its machine and its growths."""
    return "\n".join([*_bars(found), *_peers(found), *(line for part in found.parts for line in _part(part))]) + "\n"


def _bars(found: Benchmark) -> Iterator[str]:
    held = list(found.held())
    if not held:
        return
    yield "## What we hold ourselves to\n"
    yield from _table(
        ("part", "what", "dtype", "tokens", "batch", "measured", "bar", ""),
        (
            (
                *(part.name, row.side, row.dtype, f"{row.tokens:,}", str(row.batch)),
                *(found_text(bar, row), bar_text(bar), met_text(bar, row)),
            )
            for part, row, bar in held
        ),
    )


def _peers(found: Benchmark) -> Iterator[str]:
    """Which peers were faster than ours, or that none was."""
    if not any(row.peer for part in found.parts for row in part.rows):
        return
    ahead = [
        f"- {part.name}: {row.side}, {row.dtype}, {row.tokens:,} tokens, batch {row.batch}: {ratio_text(row)}"
        for part, row in found.ahead()
    ]
    yield from ["Peers ahead of ours:", "", *ahead, ""] if ahead else ["No peer is ahead of ours in any row.", ""]


def _part(part: Part) -> Iterator[str]:
    machine = part.machine
    yield f"## {part.name}\n"
    yield (
        f"{part.about} {part.model[:1].upper() + part.model[1:]}. Medians with quartiles in brackets; a ratio is the "
        "median over the rounds in which its sides took turns.\n"
    )
    quick = "A quick run, whose numbers say nothing about long prompts. " if part.quick else ""
    yield (
        f"{quick}{part.made}, {seconds_text(part.took_s)}: {machine.device}, {machine.processor}, {machine.threads} "
        f"threads, load average {machine.load_average:.1f} before, memory read at "
        f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s; torch {machine.torch_version}, transformers "
        f"{machine.transformers_version}, Python {machine.python_version}.\n"
    )
    columns = [(name, cell) for name, cell in _COLUMNS.items() if any(cell(row) for row in part.rows)]
    yield from _table([name for name, _ in columns], ([cell(row) for _, cell in columns] for row in part.rows))
    if part.growths:
        yield from [*(f"- {line.what}: {growth_text(line)}" for line in part.growths), ""]


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(columns)
    yield _line(names)
    yield _line(["---"] * len(names))
    yield from map(_line, rows)
    yield ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _limit(row: Row) -> str:
    if row.limit_s is None or row.seconds is None:
        return ""
    return f"{seconds_text(row.limit_s)}, {row.limit_s / row.seconds.median:.0%} of that speed"


def _bytes(count: int | None) -> str:
    return "" if count is None else bytes_text(count)


def _rate(row: Row) -> str:
    rate = row.tokens_per_s
    return "" if rate is None or row.read_bytes is None else rate_text(rate)


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "side": lambda row: row.side,
    "dtype": lambda row: row.dtype,
    "tokens": lambda row: f"{row.tokens:,}",
    "batch": lambda row: str(row.batch),
    "time": lambda row: time_text(row.seconds),
    "throughput": _rate,
    "ratio": ratio_text,
    "lazy layers": lambda row: "" if row.lazy_layers is None else str(row.lazy_layers),
    "kept": lambda row: _bytes(row.kept_bytes),
    "most held beyond that": lambda row: _bytes(row.extra_bytes),
    "limit by bandwidth": _limit,
    "note": lambda row: row.note,
}
"""What a row says, by column; a part shows the columns that some row of it fills."""
