"""A benchmark that is one part: its arguments, its two files in `results/`, and its table on the screen."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.report import machine_here, markdown, write
from benchmarks.timing import memory_bandwidth
from lighttransfer_core.cost.bench_rows import Row
from lighttransfer_core.cost.benchmark import Benchmark, Part


def parser(doc: str) -> argparse.ArgumentParser:
    """With what every such benchmark is asked."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a small version that shows that everything runs")
    made.add_argument("--output", type=Path, default=Path("results"), help="folder for the two files")
    return made


def measure(name: str, about: str, rows: Iterable[Row], device: torch.device, given: argparse.Namespace) -> None:
    """Takes the rows one by one, as they are measured, then writes `bench_NAME.json` and `.md` and prints the table."""
    disable_progress_bar()
    machine, began = machine_here(device, memory_bandwidth(device)), time.perf_counter()
    found_rows = tuple(rows)
    part = Part(
        name=name,
        about=about,
        model="the embedded model",
        made=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        took_s=time.perf_counter() - began,
        quick=given.quick,
        machine=machine,
        rows=found_rows,
    )
    found = Benchmark((part,))
    write(given.output / f"bench_{name}{'_quick' if given.quick else ''}.json", found)
    print(markdown(found))
