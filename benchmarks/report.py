"""What a benchmark found, as JSON for machines and as Markdown tables for people."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import transformers

from lighttransfer_core.cost.benchmark import Benchmark, Machine, Part, processor_name
from lighttransfer_core.speed import threads_of
from lighttransfer_core.version import __version__
from viz.benchmark import (
    ahead_texts,
    bar_text,
    columns,
    found_text,
    growth_text,
    has_peers,
    made_text,
    met_text,
    missing_texts,
)


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
    if has_peers(found):
        ahead = ahead_texts(found)
        yield from ["Faster than ours:\n", *(f"- {line}" for line in ahead)] if ahead else ["No peer is ahead of ours."]
        yield ""


def _part(part: Part) -> Iterator[str]:
    yield f"## {part.name}\n"
    yield (
        f"{part.about} {part.model[:1].upper() + part.model[1:]}. Medians with quartiles in brackets; a ratio is the "
        "median over the rounds in which its sides took turns.\n"
    )
    quick = "A quick run, whose numbers say nothing about long prompts. " if part.quick else ""
    yield f"{quick}{made_text(part)}\n"
    table = columns([row for row in part.rows if row.seconds is not None])
    yield from _table(table, zip(*table.values(), strict=True))
    lines = [*missing_texts(part.rows), *(f"{line.what}: {growth_text(line)}" for line in part.growths)]
    yield from [*(f"- {line}" for line in lines), ""] if lines else []


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(columns)
    yield _line(names)
    yield _line(["---"] * len(names))
    yield from map(_line, rows)
    yield ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
