from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import Rounds, interleaved, take_turns
from lighttransfer_core.cost.bench_rows import Spread


def test_every_round_begins_with_another_side_and_some_sides_have_one_only() -> None:
    turns: list[str] = []
    sides = {name: (lambda name=name: turns.append(name) or [float(len(turns))]) for name in "abc"}
    found = take_turns(sides, 3, once=["b"])
    assert turns == ["a", "b", "c", "c", "a", "a", "c"]
    assert found.seconds == {"a": [[1.0], [5.0], [6.0]], "b": [[2.0]], "c": [[3.0], [4.0], [7.0]]}


def test_every_second_round_runs_the_other_way() -> None:
    turns: list[str] = []
    take_turns({name: (lambda name=name: turns.append(name) or [1.0]) for name in "abc"}, 4)
    assert turns == ["a", "b", "c", "b", "a", "c", "c", "a", "b", "a", "c", "b"]


def test_no_round_begins_once_the_time_is_spent_but_one_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert len(take_turns({"a": lambda: [1.0]}, 5, budget_s=0.0).seconds["a"]) == 1
    assert len(take_turns({"a": lambda: [1.0]}, 5, budget_s=25.0).seconds["a"]) == 3


def test_nobody_takes_no_turns() -> None:
    assert take_turns({}, 3).seconds == {}


def test_ratios_are_of_the_medians_of_a_round_and_times_of_everything() -> None:
    found = Rounds({"a": [[2.0, 4.0, 100.0], [6.0]], "b": [[2.0], [2.0]], "c": [[8.0]]})
    assert found.ratio("a", "b") == Spread.of([2.0, 3.0])
    assert found.ratio("c", "b") == Spread.of([4.0]), "of the rounds that both have"
    assert found.time("a") == Spread.of([2.0, 4.0, 100.0, 6.0])


def test_work_of_this_process_is_timed_after_a_warm_up() -> None:
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    found = interleaved(sides, 2, torch.device("cpu"), warmup=1)
    assert sorted(calls) == sorted("ab" * 3)
    assert {name: len(turns) for name, turns in found.seconds.items()} == {"a": 2, "b": 2}


def test_the_bandwidth_is_of_the_faster_of_reading_and_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "interleaved", lambda *_, **__: Rounds({"read": [[3.0], [2.0]], "copy": [[2.5]]}))
    assert timing.memory_bandwidth(torch.device("cpu"), nbytes=1000) == pytest.approx(800.0)
