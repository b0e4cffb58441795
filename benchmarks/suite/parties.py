"""Which process a party has: its interpreter, its module and its arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.suite.process import Asked, WorkerProcess
from benchmarks.suite.stage import MakeWorker
from benchmarks.workers.environment import kvpress_python
from benchmarks.workers.protocol import KVPRESS_PARTY, OURS, TRANSFORMERS
from lighttransfer_core.types import Window

_MODULE = "benchmarks.workers.{}_worker"


def processes(window: Window, device: torch.device, kvpress: Path | None = None) -> Callable[[Path], MakeWorker]:
    """Makes workers on the model in a folder.

    Parameters
    ----------
    window
        What lazy layers keep.
    kvpress
        An interpreter that has kvpress; None: that of the environment that is built for it.
    """

    def on(folder: Path) -> MakeWorker:
        def make(party: str) -> Asked:
            model, sizes = [str(folder), str(device)], [str(window.sink), str(window.recent)]
            if party == TRANSFORMERS:
                return WorkerProcess(sys.executable, _MODULE.format("transformers"), model)
            if party == OURS:
                return WorkerProcess(sys.executable, _MODULE.format("our"), [*model, *sizes])
            assert party == KVPRESS_PARTY, party
            layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
            python = kvpress or kvpress_python()
            return WorkerProcess(python, _MODULE.format("kvpress"), [*model, str(layers // 2), *sizes])

        return make

    return on
