"""A tiny model in a folder, and workers in this process, which speak as they would through their pipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite.process import Asked
from benchmarks.workers.our_worker import OurWorker
from benchmarks.workers.protocol import OURS, TRANSFORMERS, Unavailable, answer
from benchmarks.workers.transformers_worker import TransformersWorker
from lighttransfer_core.types import Window
from tests.conftest import make_tiny, tokens

WINDOW = Window(2, 30)
IDS: list[int] = tokens(200)[0].tolist()


class Local:
    """A worker of this process; what it is told and what it says go through JSON."""

    def __init__(self, worker: object) -> None:
        self.worker = worker
        self.asked: list[str] = []

    def ask(self, do: str, **given: Any) -> Any:
        self.asked.append(do)
        said = json.loads(json.dumps(answer(self.worker, json.loads(json.dumps({"do": do, **given})))))
        if "unavailable" in said:
            raise Unavailable(said["unavailable"])
        return said["found"]

    def close(self) -> None:
        self.asked.append("close")


def local_worker(folder: Path, party: str) -> Asked:
    """Ours or transformers'; kvpress is not here."""
    if party == OURS:
        return Local(OurWorker(str(folder), "cpu", str(WINDOW.sink), str(WINDOW.recent)))
    if party == TRANSFORMERS:
        return Local(TransformersWorker(str(folder), "cpu"))
    raise Unavailable(f"{party} is not installed")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    make_tiny("llama").save_pretrained(made)
    return made
