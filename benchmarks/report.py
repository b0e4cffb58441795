"""What a benchmark found, as JSON for machines and as a Markdown table for people."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.timing import Spread
from lighttransfer_core.version import __version__


@dataclass(frozen=True)
class Row:
    """One side of one claim.

    Attributes
    ----------
    seconds
        Of one prefill, scoring or decode step.
    ratio, ratio_of, bar
        The claim's ratio, of what, and what we hold ourselves to.
    nbytes, bytes_of
        Bytes that the side keeps or reads, and which.
    limit_s
        What those bytes take at the machine's memory bandwidth: no step can be shorter.
    """

    what: str
    dtype: str
    tokens: int
    batch: int
    seconds: Spread
    ratio: Spread | None = None
    ratio_of: str = ""
    bar: str = ""
    nbytes: int | None = None
    bytes_of: str = ""
    limit_s: float | None = None


@dataclass(frozen=True)
class Machine:
    """Where it was measured, and how busy it was before with other things."""

    device: str
    processor: str
    threads: int
    bandwidth_bytes_per_s: float
    load_average: float
    omp_wait_policy: str = os.environ.get("OMP_WAIT_POLICY", "")
    torch_version: str = torch.__version__
    transformers_version: str = transformers.__version__
    python_version: str = platform.python_version()
    version: str = __version__

    @classmethod
    def of(cls, device: torch.device, bandwidth: float, load_average: float) -> Machine:
        return cls(_device_name(device), _processor(), torch.get_num_threads(), bandwidth, load_average)


def write(folder: Path, name: str, machine: Machine, settings: Any, rows: list[Row]) -> str:
    """Writes `<name>.json` and `<name>.md` into the folder, and returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "made": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "machine": dataclasses.asdict(machine),
        "settings": dataclasses.asdict(settings),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = markdown(machine, rows)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return text


def markdown(machine: Machine, rows: list[Row]) -> str:
    head = (
        f"{machine.device}, {machine.processor}, {machine.threads} threads, load average {machine.load_average:.1f} "
        "before the run, measured memory bandwidth "
        f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s; torch {machine.torch_version}, "
        f"transformers {machine.transformers_version}, Python {machine.python_version}. Medians, with quartiles in "
        "brackets; a ratio is the median over rounds in which both sides took turns.\n"
    )
    columns = ("what", "dtype", "tokens", "batch", "time", "ratio", "bar", "bytes", "limit by bandwidth")
    lines = [head, _line(columns), _line(["---"] * len(columns)), *(_line(_cells(row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    ratio = f"{_spread(row.ratio, '', 1.0)} {row.ratio_of}" if row.ratio else ""
    limit = ""
    if row.limit_s is not None:
        limit = f"{row.limit_s * 1e3:,.1f} ms, {row.limit_s / row.seconds.median:.0%} of that speed"
    nbytes = "" if row.nbytes is None else f"{row.nbytes / 1e6:,.0f} MB {row.bytes_of}"
    time = _spread(row.seconds, " s", 1.0) if row.seconds.median >= 1 else _spread(row.seconds, " ms", 1e3)
    return [row.what, row.dtype, f"{row.tokens:,}", str(row.batch), time, ratio, row.bar, nbytes, limit]


def _spread(value: Spread, unit: str, scale: float) -> str:
    low, median, high = (_number(number * scale) for number in (value.low, value.median, value.high))
    return f"{median}{unit}" if value.count < 2 else f"{median}{unit} [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.3f}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
