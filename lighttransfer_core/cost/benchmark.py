"""What `make bench` measured on a machine, part by part, as records with a JSON round trip. No torch.

Sides of a part took turns in one run, so that ratios between its rows are paired.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, convert, nested, several
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import JsonRecord

FILE_VARIABLE = "LIGHTTRANSFER_BENCH"
DEFAULT_FILE = Path("results") / "bench.json"
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Machine(JsonRecord):
    """Where a part was measured, with which libraries, and how busy the machine was just before."""

    device: str
    processor: str
    threads: int
    bandwidth_bytes_per_s: float
    load_average: float
    torch_version: str
    transformers_version: str
    python_version: str
    version: str

    def __post_init__(self) -> None:
        convert(self, str, "device", "processor", "torch_version", "transformers_version", "python_version", "version")
        convert(self, float, "bandwidth_bytes_per_s", "load_average")
        convert(self, int, "threads")


@dataclass(frozen=True)
class Part(JsonRecord):
    """One part of the suite, measured in one go.

    Attributes
    ----------
    name
        As the command line has it.
    about
        What was measured, in a sentence or two.
    made
        When it ended, ISO 8601 in UTC.
    took_s
        Seconds of the whole part.
    model
        What ran, in words.
    quick
        Whether it was the small version, whose numbers say nothing about long prompts.
    """

    name: str
    about: str
    model: str
    made: str
    took_s: float
    quick: bool
    machine: Machine
    rows: tuple[Row, ...]
    growths: tuple[Growth, ...] = ()

    def __post_init__(self) -> None:
        convert(self, str, "name", "about", "model", "made")
        convert(self, float, "took_s")
        convert(self, nested(Machine), "machine")
        convert(self, several(Row), "rows")
        convert(self, several(Growth), "growths")


@dataclass(frozen=True)
class Benchmark(JsonRecord):
    """All parts at hand, each from its latest run."""

    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        convert(self, several(Part), "parts")

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def with_part(self, part: Part) -> Benchmark:
        """With one part measured anew; the others stay, each with its own machine and time."""
        names = [one.name for one in self.parts]
        if part.name not in names:
            return Benchmark((*self.parts, part))
        return Benchmark(tuple(part if one.name == part.name else one for one in self.parts))

    def held(self) -> Iterator[tuple[Part, Row, Bar]]:
        """Every number that we hold ourselves to."""
        return ((part, row, bar) for part in self.parts for row in part.rows for bar in row.bars)

    def ahead(self) -> Iterator[tuple[Part, Row]]:
        """The rows in which a peer was faster than ours."""
        return ((part, row) for part in self.parts for row in part.rows if row.ahead)


def benchmark_file() -> Path:
    """Where the results of this machine are looked for: `LIGHTTRANSFER_BENCH`, or `results/bench.json`."""
    return Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def read_benchmark(file: Path) -> Benchmark | None:
    """The results in a file; None where there is no such file.

    Raises
    ------
    InvalidInputError
        The file cannot be read, or holds no results.
    """
    if not file.exists():
        return None
    if file.stat().st_size > _MOST_BYTES:
        raise InvalidInputError(f"{file} is larger than {_MOST_BYTES >> 20} MiB, so it is not read.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        return Benchmark.from_dict({"parts": data["parts"]})
    except OSError as error:
        raise InvalidInputError(f"Cannot read {file}: {error}.") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInputError(f"{file} holds no results of the benchmark: {error!r}.") from error


def processor_name() -> str:
    """What the system calls the processor of this machine."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")
