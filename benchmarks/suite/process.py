"""Workers seen from the suite: a process that is asked one thing at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workers.protocol import Unavailable

ROOT = Path(__file__).resolve().parents[2]


class Asked(Protocol):
    """Whatever does what a worker does."""

    def ask(self, do: str, **given: Any) -> Any:
        """What the worker's method of that name returns; raises Unavailable where it cannot be had here."""

    def close(self) -> None:
        """Ends it."""


class WorkerProcess:
    """A worker in a process of its own.

    Parameters
    ----------
    python
        The interpreter of its environment.
    module
        The worker's module, run with `arguments`.
    """

    def __init__(self, python: Path | str, module: str, arguments: Sequence[str]) -> None:
        self._name = module.rpartition(".")[2]
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # a worker that waits for its turn must not spin, and none of them shows bars
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"},
        )

    def ask(self, do: str, **given: Any) -> Any:
        """Raises RuntimeError where the process ends instead of answering; its own words are on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the missing answer says
            self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with status {self._process.wait()} when it was asked to {do}.")
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer["found"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
