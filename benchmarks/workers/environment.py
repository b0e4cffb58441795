"""The environment of kvpress: built with pip once, in the user's cache folder.

kvpress 0.5.5 needs transformers below 5.3, so it cannot share ours. It gets the same release of torch.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from benchmarks.workers.protocol import Unavailable
from lighttransfer_core.folders import cache_root

PACKAGES = ("torch==2.13.0", "kvpress==0.5.5")
_DONE = "packages.txt"

Run = Callable[[Sequence[str]], int]


def kvpress_python(root: Path | None = None, run: Run | None = None) -> Path:
    """The interpreter of an environment with kvpress, built first where there is none or one of other packages.

    Parameters
    ----------
    root
        Where environments are kept; the cache folder of this library if None.
    run
        Runs a command and gives its exit status.

    Raises
    ------
    Unavailable
        pip could not install the packages.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = (root or cache_root()) / f"bench-kvpress-python{version}"
    python, done = folder / "bin" / "python", folder / _DONE
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if done.is_file() and done.read_text(encoding="utf-8").split() == [*PACKAGES]:
            return python
        execute = run or _run
        for command in (
            (sys.executable, "-m", "venv", "--clear", str(folder)),
            (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *PACKAGES),
        ):
            if status := execute(command):
                raise Unavailable(f"its environment could not be built ({' '.join(command[1:4])} ended with {status})")
        done.write_text("\n".join(PACKAGES) + "\n", encoding="utf-8")
    return python


def _run(command: Sequence[str]) -> int:
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode
