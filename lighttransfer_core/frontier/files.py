"""Files of results as they are written: one writer at a time, a line per example, gone on with after a stop."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from lighttransfer_core.errors import InvalidInputError, ResultsInUseError
from lighttransfer_core.frontier.results import SUFFIX, ExampleResult, Sweep, merged, read_sweep
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader

_PART = re.compile(rf"(\.\d+)?{re.escape(SUFFIX)}")


class ResultsFile:
    """A file that grows by one line per example, and can be gone on with after a stop; one that holds no example yet is
    begun anew.

    Raises
    ------
    InvalidInputError
        The file holds the results of another question.
    """

    def __init__(self, file: Path, header: SweepHeader) -> None:
        self.file = file
        self.done: set[ExampleKey] = set()
        file.parent.mkdir(parents=True, exist_ok=True)
        found = read_sweep(file) if file.exists() and file.stat().st_size else None
        if found is None or not found.results:
            self._write([header.to_json()])
            return
        if not found.header.continues(header):
            raise InvalidInputError(
                f"{file} holds results of another question or model, with other "
                f"{', '.join(found.header.differences(header))}: give another --output, or move it away."
            )
        self.done = found.done
        grown = replace(found.header, spec=header.spec)
        # written anew, so that a line that was cut short does not stay, and the header says how many were asked last
        self._write([grown.to_json(), *(result.to_json() for result in found.results)])

    def add(self, result: ExampleResult) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(result.to_json() + "\n")
        self.done.add(result.key)

    def _write(self, lines: Iterable[str]) -> None:
        replace_text(self.file, "".join(line + "\n" for line in lines))


def replace_text(file: Path, text: str) -> None:
    """Writes a file anew, so that an interrupt leaves the old one or the new one, and no part of either."""
    partial = file.with_name(file.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


@contextmanager
def adding_to(file: Path, header: SweepHeader) -> Iterator[ResultsFile]:
    """The file, for nobody else to write while the block lasts. What stands in the files of other processes is done.

    Raises
    ------
    ResultsInUseError
        Another run writes it now.
    InvalidInputError
        The file holds the results of another question, or cannot be written.
    """
    lock = FileLock(file.with_name(f"{file.name}.lock"), timeout=0, thread_local=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ResultsInUseError(
            f"Another run adds to {file.name} now: wait until it has ended, then go on; what it has found is not asked "
            "again."
        ) from None
    except OSError as error:
        raise InvalidInputError(f"Cannot write {file}: {error}. Name a folder that can be written.") from error
    try:
        results = ResultsFile(file, header)
        results.done |= _answered_beside(file, header)
        yield results
    finally:
        lock.release()


def part_of(file: Path, process: int) -> Path:
    """The file of one of several processes that share a sweep."""
    return file.with_suffix(f".{process}{SUFFIX}")


def read_parts(file: Path) -> list[Sweep]:
    """A file of results with what several processes wrote beside it, as one sweep; the file itself may be missing.

    Raises
    ------
    InvalidInputError
        There is no such file and no part of it, or one of them holds no results.
    """
    numbered = re.compile(rf"{re.escape(file.stem)}\.\d+{re.escape(SUFFIX)}")
    parts = [other for other in sorted(file.parent.glob(f"*{SUFFIX}")) if numbered.fullmatch(other.name)]
    if not file.exists() and parts:
        return merged(map(read_sweep, parts))
    own = read_sweep(file)
    same = [part for part in map(_sweep_or_none, parts) if part is not None and own.header.continues(part.header)]
    return merged([*same, own])


def _sweep_or_none(file: Path) -> Sweep | None:
    """None for a file of something else, which has such a name by chance."""
    try:
        return read_sweep(file)
    except InvalidInputError:
        return None


def _answered_beside(file: Path, header: SweepHeader) -> set[ExampleKey]:
    """What the files of the same sweep hold that other processes wrote, under a launcher or without one."""
    stem = _PART.sub("", file.name)
    beside = [other for other in file.parent.glob(f"*{SUFFIX}") if _PART.sub("", other.name) == stem and other != file]
    found = [read_sweep(other) for other in sorted(beside)]
    return {key for sweep in found if sweep.header.continues(header) for key in sweep.done}
