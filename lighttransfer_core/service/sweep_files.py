"""The folder of results of sweeps as a backend shows it: which files there are, how far each is, and the text of one.

It writes nothing: that is the runs' part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lighttransfer_core.errors import DoesNotFitError, InvalidInputError, SweepNotFoundError
from lighttransfer_core.folders import results_folder
from lighttransfer_core.frontier.results import SUFFIX
from lighttransfer_core.frontier.spec import SweepHeader
from lighttransfer_core.service.answers import SweepEntry

MOST_SENT_NBYTES = 64 * 2**20

_LONGEST_HEADER = 2**20
_BLOCK = 2**20


class SweepFolder:
    """The results in `LIGHTTRANSFER_RESULTS`.

    Parameters
    ----------
    most_nbytes
        Bytes of results above which no sweep is begun.
    """

    def __init__(self, most_nbytes: int) -> None:
        self._most_nbytes = most_nbytes
        self._seen: dict[str, SweepEntry] = {}

    def entries(self) -> list[SweepEntry]:
        """Every file, by name; one that holds no results says so."""
        found = {file.name: self._entry(file) for file in _files()}
        self._seen = found
        return list(found.values())

    def read(self, name: str) -> bytes:
        """The text of one file.

        Raises
        ------
        SweepNotFoundError
            No file has that name; a path is none.
        DoesNotFitError
            It is too large to be sent.
        """
        file = next((file for file in _files() if file.name == name), None)
        if file is None:
            raise SweepNotFoundError(f"There are no results {name[:100]!r} here: ask for one of those in the list.")
        if file.stat().st_size > MOST_SENT_NBYTES:
            raise DoesNotFitError(
                f"{name} has {file.stat().st_size:,} bytes and at most {MOST_SENT_NBYTES:,} are sent.",
                "its table, by `python -m lighttransfer_core frontier` where the file is",
            )
        return file.read_bytes()

    def check_room(self) -> None:
        """Raises DoesNotFitError where the folder holds too much for another sweep."""
        held = sum(file.stat().st_size for file in _files())
        if held > self._most_nbytes:
            raise DoesNotFitError(
                f"The results of sweeps take {held:,} bytes here, and {self._most_nbytes:,} are allowed.",
                "moving files out of the backend’s results folder",
            )

    def _entry(self, file: Path) -> SweepEntry:
        stat, seen = file.stat(), self._seen.get(file.name)
        if seen is not None and (seen.changed_ns, seen.nbytes) == (stat.st_mtime_ns, stat.st_size):
            return seen
        entry = SweepEntry(file.name, stat.st_size, stat.st_mtime_ns)
        try:
            header, lines = _looked_at(file)
        except InvalidInputError as error:
            return replace(entry, problem=str(error))
        return replace(entry, title=header.title, prompts=lines - 1, total=header.spec.prompts)


def _files() -> Iterator[Path]:
    """The result files; what a link leads out of the folder is none of them."""
    folder = results_folder()
    if folder.is_dir():
        inside = folder.resolve()
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            if file.is_file() and file.resolve().parent == inside:
                yield file


def _looked_at(file: Path) -> tuple[SweepHeader, int]:
    """The first line, and how many lines there are. Raises InvalidInputError where the first says something else."""
    with file.open("rb") as opened:
        first = opened.readline(_LONGEST_HEADER)
        lines = 1 + sum(block.count(b"\n") for block in iter(lambda: opened.read(_BLOCK), b""))
    try:
        data = json.loads(first)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"The file {file.name} begins with no header of a sweep: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidInputError(f"The file {file.name} begins with no header of a sweep.")
    return SweepHeader.from_dict(data), lines
