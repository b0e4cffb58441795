from __future__ import annotations

import gc
import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from lighttransfer_core.errors import InvalidPlanError, QueueFullError
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.service.runs import Run
from lighttransfer_core.service.scheduler import Scheduler
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec, SweepRunSpec
from lighttransfer_core.service.turns import JobFactory, Resting, Steps, Turns, Waiting
from lighttransfer_core.service.worker import Worker
from lighttransfer_core.types import Window
from tests.service.conftest import finished, new_run
from tests.service.in_process import WAIT_S


def counting(log: list[str], name: str, steps: int, before: Callable[[int], object] = lambda _step: None) -> JobFactory:
    def build(_turns: Turns) -> Steps:
        for step in range(steps):
            before(step)
            log.append(name)
            yield {"kind": "step", "step": step}
        return {"steps": steps}

    return build


@pytest.fixture
def ended() -> list[Run]:
    return []


@pytest.fixture
def worker(ended: list[Run]) -> Iterator[Worker]:
    one = Worker("m", active_lanes=2, on_end=ended.append)
    yield one
    one.stop()
    assert one.join(WAIT_S)


def test_two_runs_take_turns(worker: Worker) -> None:
    log: list[str] = []
    both_are_in = threading.Event()
    first, second = new_run("a"), new_run("b")
    worker.submit(first, counting(log, "a", 5, lambda _step: both_are_in.wait(WAIT_S)))
    worker.submit(second, counting(log, "b", 5))
    both_are_in.set()
    assert finished(first)
    assert finished(second)
    assert log[:10] == ["a", "b"] * 5
    assert first.result == {"steps": 5}


def test_a_turn_that_was_waited_for_is_reported_apart(worker: Worker) -> None:
    run = new_run()
    worker.submit(run, counting([], "a", 2))
    assert finished(run)
    events, _ended = run.read(0)
    assert all('"waited_s": ' in event for event in events[:-1])


def test_runs_beyond_the_active_ones_wait_in_line_with_their_place(worker: Worker) -> None:
    gate = threading.Event()
    runs = [new_run(name) for name in "abcd"]
    log: list[str] = []
    for name, run in zip("abcd", runs, strict=True):
        worker.submit(run, counting(log, name, 3, lambda _step: gate.wait(WAIT_S)))
    assert runs[3].wait_for(lambda run: run.place == 2, WAIT_S)
    assert (runs[2].place, runs[2].state, worker.waiting) == (1, "waiting", 2)
    gate.set()
    assert all(finished(run) for run in runs)
    assert set(log[:6]) == {"a", "b"}, "the first two end before the others begin"


def test_cancel_closes_the_generator_at_its_next_turn(worker: Worker) -> None:
    gate, closed = threading.Event(), threading.Event()

    def build(_turns: Turns) -> Steps:
        try:
            while True:
                yield {"kind": "step"}
                gate.wait(WAIT_S)
        finally:
            closed.set()

    run, other = new_run("a"), new_run("b")
    worker.submit(run, build)
    worker.submit(other, counting([], "b", 3))
    assert run.wait_for(lambda run: run.status("").events > 0, WAIT_S)
    run.unwanted.set()
    gate.set()
    assert finished(run)
    assert closed.is_set()
    assert run.state == "cancelled"
    assert finished(other)
    assert other.state == "done"


def test_a_waiting_run_that_nobody_wants_ends_without_a_turn(worker: Worker) -> None:
    gate = threading.Event()
    busy = [new_run(name) for name in "ab"]
    for run in busy:
        worker.submit(run, counting([], "x", 2, lambda _step: gate.wait(WAIT_S)))
    log: list[str] = []
    unwanted = new_run("c")
    worker.submit(unwanted, counting(log, "c", 2))
    unwanted.unwanted.set()
    gate.set()
    assert finished(unwanted)
    assert (unwanted.state, log) == ("cancelled", [])


def test_a_run_that_raises_fails_alone_and_frees_what_its_frames_held(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    class Tensor:
        pass

    alive: list[weakref.ref[Tensor]] = []

    def raising(_turns: Turns) -> Steps:
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        yield {"kind": "step"}
        raise InvalidPlanError("layer 99 does not exist.")

    def crashing(_turns: Turns) -> Steps:
        yield {"kind": "step"}
        raise KeyError("surprise")

    failed, crashed, good = new_run("a"), new_run("b"), new_run("c")
    with caplog.at_level(logging.CRITICAL):
        worker.submit(failed, raising)
        worker.submit(crashed, crashing)
        worker.submit(good, counting([], "c", 4))
        assert all(finished(run) for run in (failed, crashed, good))
    assert failed.error is not None
    assert failed.error.to_dict() == {"type": "InvalidPlanError", "message": "layer 99 does not exist.", "offer": None}
    assert crashed.error is not None
    assert (crashed.error.type, crashed.error.message) == ("RunFailedError", "KeyError: 'surprise'")
    assert good.state == "done"
    gc.collect()
    assert alive[0]() is None


def test_a_job_that_cannot_be_built_fails_like_any_other(worker: Worker) -> None:
    def build(_turns: Turns) -> Steps:
        raise InvalidPlanError("no such thing.")

    run = new_run()
    worker.submit(run, build)
    assert finished(run)
    assert run.state == "failed"


def test_a_job_that_waits_for_bytes_gives_its_turns_to_the_others(worker: Worker) -> None:
    free = threading.Event()

    def hungry(_turns: Turns) -> Steps:
        while not free.is_set():
            yield Waiting(3)
        yield {"kind": "step"}
        return {}

    run, other = new_run("a"), new_run("b")
    worker.submit(run, hungry)
    assert run.wait_for(lambda run: run.place == 3, WAIT_S)
    worker.submit(other, counting([], "b", 20))
    assert finished(other)
    assert run.state == "waiting"
    free.set()
    assert finished(run)
    kinds = [json.loads(event)["kind"] for event in run.read(0)[0]]
    assert kinds == ["waiting", "step", "done"], "a place that does not change is told once"


def test_an_announcement_reaches_every_run_of_the_model(worker: Worker) -> None:
    others_are_in = threading.Event()

    def loading(turns: Turns) -> Steps:
        others_are_in.wait(WAIT_S)
        turns.announce({"kind": "loading"})
        yield {"kind": "step"}
        return {}

    runs = [new_run(name) for name in "abc"]
    for run in runs:
        worker.submit(run, loading if run is runs[0] else counting([], "x", 1))
    others_are_in.set()
    assert all(finished(run) for run in runs)
    assert all("loading" in [json.loads(event)["kind"] for event in run.read(0)[0]] for run in runs)


def test_a_job_knows_whether_others_wait(worker: Worker) -> None:
    both_are_in = threading.Event()
    seen: list[bool] = []

    def asking(turns: Turns) -> Steps:
        seen.append(turns.others_wait())
        yield {"kind": "step"}
        both_are_in.wait(WAIT_S)
        seen.append(turns.others_wait())
        return {}

    first, second = new_run("a"), new_run("b")
    worker.submit(first, asking)
    assert first.wait_for(lambda run: run.status("").events > 0, WAIT_S)
    worker.submit(second, counting([], "b", 1))
    both_are_in.set()
    assert finished(first)
    assert finished(second)
    assert seen == [False, True]


def test_the_line_is_bounded_over_all_models() -> None:
    gate = threading.Event()
    scheduler = Scheduler(lambda _run: None, active_lanes=1, max_waiting=2)
    running, *waiting = (new_run(name) for name in "abc")
    started = threading.Event()
    scheduler.submit("m", running, counting([], "a", 1, lambda _step: (started.set(), gate.wait(WAIT_S))))
    assert started.wait(WAIT_S)
    for run in waiting:
        scheduler.submit("m", run, counting([], "x", 1))
    with pytest.raises(QueueFullError, match="2 runs are waiting"):
        scheduler.submit("m", new_run("d"), counting([], "d", 1))
    gate.set()
    assert all(finished(run) for run in waiting)
    scheduler.submit("m", late := new_run("e"), counting([], "e", 1))
    assert finished(late)
    assert scheduler.close(WAIT_S)


def test_idle_workers_retire_when_there_are_many_models() -> None:
    scheduler = Scheduler(lambda _run: None)
    for number in range(40):
        run = new_run(f"model{number}")
        scheduler.submit(f"model{number}", run, counting([], "x", 1))
        assert finished(run)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("worker-model")]
    assert len(names) <= 20
    assert scheduler.close(WAIT_S)


def test_closing_cancels_what_has_not_ended() -> None:
    scheduler = Scheduler(lambda _run: None, active_lanes=1)
    go_on = threading.Event()
    runs = [new_run(name) for name in "ab"]
    for run in runs:
        scheduler.submit("m", run, counting([], "x", 10**6, lambda _step: go_on.wait(WAIT_S)))
    go_on.set()
    assert scheduler.close(WAIT_S)
    assert [run.state for run in runs] == ["cancelled", "cancelled"]


def test_one_structured_line_is_logged_per_run(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    run = new_run("smollm2")
    with caplog.at_level(logging.INFO, "lighttransfer.runs"):
        worker.submit(run, counting([], "a", 3))
        assert finished(run)
        worker.stop()
        assert worker.join(WAIT_S)
    (record,) = [record for record in caplog.records if record.name == "lighttransfer.runs"]
    assert '"model": "smollm2", "state": "done", "requests": 0, "prompt_tokens"' in record.message


def compare_run(lanes: int, name: str = "m") -> Run:
    prefill = PrefillSpec(name, "0" * 64)
    return Run(CompareSpec(prefill, tuple(LaneSettings() for _ in range(lanes - 1))))


def test_lanes_count_and_nobody_overtakes(worker: Worker) -> None:
    gate, log = threading.Event(), list[str]()
    runs = [compare_run(2), compare_run(2), new_run("c")]
    for name, run in zip("abc", runs, strict=True):
        worker.submit(run, counting(log, name, 3, lambda _step: gate.wait(WAIT_S)))
    assert runs[2].wait_for(lambda run: run.place == 2, WAIT_S)
    gate.set()
    assert all(finished(run) for run in runs)
    assert log[:3] == ["a"] * 3, "two lanes fill the worker of two"


def test_a_run_of_more_lanes_than_the_worker_gives_still_runs_alone(worker: Worker) -> None:
    run = compare_run(4)
    worker.submit(run, counting([], "a", 2))
    assert finished(run)


def test_a_paused_run_takes_no_place_and_its_rest_is_no_waiting(worker: Worker) -> None:
    go_on = threading.Event()

    def pausing(_turns: Turns) -> Steps:
        yield {"kind": "step"}
        while not go_on.is_set():
            yield Resting(0.01, paused=True)
        yield {"kind": "step"}
        return {}

    paused = compare_run(2)
    worker.submit(paused, pausing)
    others = [compare_run(2, "x") for _ in range(3)]
    for run in others:
        worker.submit(run, counting([], "x", 3))
    assert all(finished(run) for run in others)
    assert paused.state == "running"
    go_on.set()
    assert finished(paused)
    events = [json.loads(event) for event in paused.read(0)[0]]
    assert [event["kind"] for event in events][-3:] == ["step", "step", "done"]
    assert events[-2]["waited_s"] < 0.2


def test_a_run_that_takes_too_long_fails_typed_and_is_closed(ended: list[Run]) -> None:
    closed = threading.Event()

    def endless(_turns: Turns) -> Steps:
        try:
            while True:
                yield {"kind": "step"}
        finally:
            closed.set()

    worker = Worker("m", 2, ended.append, wall_clock_s=0.05)
    run = new_run()
    worker.submit(run, endless)
    assert finished(run)
    assert run.error is not None
    assert (run.state, run.error.type, closed.is_set()) == ("failed", "DeadlineError", True)
    worker.stop()
    assert worker.join(WAIT_S)


def sweep_run(name: str) -> Run:
    return Run(SweepRunSpec(name, SweepSpec(tasks=("t",), lengths=(9,), windows=(Window(1, 1),))))


def test_sweeps_wait_for_each_other_and_hold_nobody_up(ended: list[Run]) -> None:
    worker, gate = Worker("m", 2, ended.append, wall_clock_s=1e9, sweep_clock_s=1e9), threading.Event()
    turns: list[str] = []

    def until_open(name: str) -> JobFactory:
        def build(_turns: Turns) -> Steps:
            while not gate.is_set():
                turns.append(name)
                yield {"kind": "step"}
            return {}

        return build

    sweeps = {name: sweep_run(name) for name in "abcd"}
    for name, run in sweeps.items():
        worker.submit(run, until_open(name))
    assert sweeps["d"].wait_for(lambda run: run.place == 2, WAIT_S)
    assert (sweeps["c"].place, sweeps["c"].wait_s) == (1, None)
    quick = [new_run(str(number)) for number in range(4)]
    for run in quick:
        worker.submit(run, counting([], "x", 3))
    assert all(finished(run) for run in quick), "each has room beside two sweeps, past those that wait"
    assert {run.state for run in sweeps.values()} == {"running", "waiting"}
    assert set(turns) == {"a", "b"}
    gate.set()
    assert all(finished(run) for run in sweeps.values())
    last = new_run("last")
    worker.submit(last, counting([], "x", 1))
    assert finished(last)
    worker.stop()
    assert worker.join(WAIT_S)


def test_runs_in_line_wait_behind_each_other_whatever_sweeps_there_are(worker: Worker) -> None:
    gate = threading.Event()
    runs = [new_run(name) for name in "abcd"]
    for run in [*runs, sweep_run("s")]:
        worker.submit(run, counting([], "x", 1, lambda _step: gate.wait(WAIT_S)))
    assert runs[3].wait_for(lambda run: run.place == 2, WAIT_S)
    gate.set()
    assert all(finished(run) for run in runs)


def test_the_wait_is_estimated_once_a_run_has_ended(worker: Worker) -> None:
    first = new_run("a")
    worker.submit(first, counting([], "a", 2))
    assert finished(first)
    gate = threading.Event()
    runs = [new_run(name) for name in "bcd"]
    for run in runs:
        worker.submit(run, counting([], "x", 1, lambda _step: gate.wait(WAIT_S)))
    assert runs[2].wait_for(lambda run: run.place == 1 and run.wait_s is not None, WAIT_S)
    gate.set()
    assert all(finished(run) for run in runs)
