from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.suite import parties
from benchmarks.suite.process import WorkerProcess
from benchmarks.suite.stage import Stage
from benchmarks.workers.environment import PACKAGES, kvpress_python
from benchmarks.workers.protocol import KVPRESS, OURS, TRANSFORMERS, Unavailable, party_of
from lighttransfer_core.types import Window
from tests.benchmarks.conftest import Local


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    made = WorkerProcess(sys.executable, "tests.benchmarks.echo_worker", [])
    yield made
    made.close()


def test_a_worker_answers_line_by_line_whatever_else_is_printed(process: WorkerProcess) -> None:
    assert process.ask("prompt", ids=[1, 2]) is None
    assert process.ask("say", words="é\n") == {"words": "é\n", "ids": [1, 2], "wait": "PASSIVE"}
    with pytest.raises(Unavailable, match="it is not here"):
        process.ask("lack")
    assert process.ask("say", words="")["words"] == "", "it goes on after a refusal"


def test_a_worker_that_ends_is_an_error_with_its_status(process: WorkerProcess) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="echo_worker ended with status 3 when it was asked to leave"):
            process.ask("leave")


class Commands:
    """Commands that were run, and the status of each."""

    def __init__(self, *statuses: int) -> None:
        self.run: list[Sequence[str]] = []
        self._statuses = list(statuses)

    def __call__(self, command: Sequence[str]) -> int:
        self.run.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return self._statuses.pop(0) if self._statuses else 0


def test_the_environment_is_built_once(tmp_path: Path) -> None:
    commands = Commands()
    python = kvpress_python(tmp_path, commands)
    assert python.is_relative_to(tmp_path)
    assert commands.run[0][:3] == (sys.executable, "-m", "venv")
    assert commands.run[1][0] == str(python)
    assert commands.run[1][-2:] == PACKAGES
    assert kvpress_python(tmp_path, commands) == python
    assert len(commands.run) == 2


def test_an_environment_that_was_not_finished_or_has_other_packages_is_built_again(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="ended with 1"):
        kvpress_python(tmp_path, Commands(0, 1))
    commands = Commands()
    python = kvpress_python(tmp_path, commands)
    assert len(commands.run) == 2
    (python.parents[1] / "packages.txt").write_text("kvpress==0.1\n", encoding="utf-8")
    kvpress_python(tmp_path, commands)
    assert len(commands.run) == 4


def test_workers_are_made_once_and_a_missing_party_is_asked_for_once() -> None:
    made: list[str] = []

    class Silent:
        def prompt(self, ids: list[int]) -> None:
            self.ids = ids

        def available(self, side: str) -> None:
            if side == "ours, not this":
                raise Unavailable("no such side")

    def make(party: str) -> Local:
        made.append(party)
        if party == party_of(KVPRESS):
            raise Unavailable("no network")
        return Local(Silent())

    stage = Stage(make, [1, 2, 3], "a model")
    sides = ["ours, this", "ours, not this", KVPRESS, "transformers, this"]
    assert stage.missing(sides) == {"ours, not this": "no such side", KVPRESS: "no network"}
    assert stage.missing([KVPRESS]) == {KVPRESS: "no network"}
    assert made == ["ours", "kvpress", "transformers"]
    ours = stage.of(OURS)
    assert isinstance(ours, Local)
    assert ours.worker.ids == [1, 2, 3]  # type: ignore[attr-defined]
    stage.close()
    assert ours.asked[-1] == "close"
    stage.of(TRANSFORMERS)
    assert made[-1] == "transformers", "a closed stage begins anew"


def test_each_party_has_its_own_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, str, list[str]]] = []
    monkeypatch.setattr(parties, "WorkerProcess", lambda *command: started.append(command))
    make = parties.processes(Window(4, 60), "cpu", Path("/else/python"))(folder)  # type: ignore[arg-type]
    for party in (OURS, TRANSFORMERS, party_of(KVPRESS)):
        make(party)
    model = [str(folder), "cpu"]
    assert started == [
        (sys.executable, "benchmarks.workers.our_worker", [*model, "4", "60"]),
        (sys.executable, "benchmarks.workers.transformers_worker", model),
        (Path("/else/python"), "benchmarks.workers.kvpress_worker", [*model, "2", "4", "60"]),
    ]
