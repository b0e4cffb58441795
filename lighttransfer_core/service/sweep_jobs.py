"""What the runs over many prompts do in turns: a sweep, whose results go into a file, and the check of one plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import TypeVar

from lighttransfer_core.errors import DoesNotFitError, InvalidInputError
from lighttransfer_core.folders import results_folder
from lighttransfer_core.frontier.bounds import check_names, check_sweep, sweep_nbytes
from lighttransfer_core.frontier.checking import CheckProgress, check_nbytes, check_room, check_steps
from lighttransfer_core.frontier.choice import CheckedPrompt, findings
from lighttransfer_core.frontier.files import adding_to
from lighttransfer_core.frontier.summary import Estimate
from lighttransfer_core.frontier.sweep import SweepProgress, query_rows, sweep_header, sweep_steps
from lighttransfer_core.keep import Keep
from lighttransfer_core.laziness.metric import metric_info
from lighttransfer_core.service.admission import PrefillKey
from lighttransfer_core.service.engine import largest
from lighttransfer_core.service.measure_jobs import refused
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.specs import CheckSpec, SweepRunSpec
from lighttransfer_core.service.task import Task
from lighttransfer_core.service.turns import Output, Steps, Waiting
from lighttransfer_core.tasks import check_ready
from lighttransfer_core.types import ModelSpec

MOST_PROMPTS = 10_000
MOST_PLANS = 512

_TURN_S = 0.25
_SHARED_TURN_S = 0.05

At = TypeVar("At")
Result = TypeVar("Result")


def check_run(spec: SweepRunSpec | CheckSpec, model: ModelSpec | None) -> None:
    """Refuses what could not run to the end, as far as that is known before it starts; `model` where it is loaded.

    Raises
    ------
    UnknownTaskError, UnknownMetricError, TaskDataError, InvalidInputError
        And what `check_sweep` or `check_room` raises.
    """
    if isinstance(spec, CheckSpec):
        if model is not None:
            check_room(model, spec.check)
        return
    sweep = spec.sweep
    check_names(sweep)
    for name in sweep.tasks:
        check_ready(name)
    for name in (*sweep.rankings, *sweep.trials):
        if metric_info(name).kind == "trial":
            raise InvalidInputError(
                f"{name} tries layers out, which takes turns that are too long beside other runs: choose another "
                "ranking, or run the sweep on the command line."
            )
    if sweep.prompts > MOST_PROMPTS or sweep.plans > MOST_PLANS:
        raise InvalidInputError(
            f"The sweep asks {sweep.prompts:,} prompts with up to {sweep.plans:,} plans each, and a run may ask "
            f"{MOST_PROMPTS:,} with {MOST_PLANS:,}: choose fewer, or run the sweep on the command line."
        )
    if model is not None:
        check_sweep(model, sweep)


def sweep(task: Task, spec: SweepRunSpec) -> Steps:
    """Asks what the file does not hold yet. The result is the file's name and how many prompts it holds of how many."""
    asked, lm = spec.sweep, task.lm
    check_run(spec, lm.spec)
    task.engine.check_length(max(asked.lengths))
    header, keep = sweep_header(lm, asked), Keep(query_rows=query_rows(asked))
    results = task.stack.enter_context(adding_to(results_folder() / header.file_name, header))
    pace = _Pace(asked.prompts - len(results.done.intersection(asked.keys)))

    def told(at: SweepProgress) -> Event:
        if at.result is None:
            return _telling(f"Prompt {at.done + 1:,} of {at.total:,}{pace.left()}: {at.doing}", at.done / at.total)
        results.add(at.result)
        pace.one_more()
        facts = {**at.result.key.to_dict(), "full": at.result.full.to_dict(), "seconds": at.result.seconds}
        return {"kind": "example", **facts, "done": at.done, "total": at.total}

    bytes_of = _Bytes(task, max(asked.lengths), lambda length: sweep_nbytes(lm.spec, asked, keep, length))
    steps = sweep_steps(lm, asked, results.done, task.chunk_s)
    yield from _in_turns(task, bytes_of, steps, told, _is_result, lambda at: _is_result(at) and not at.goes_on)
    return {"file": header.file_name, "done": len(results.done), "total": asked.prompts}


def _is_result(at: SweepProgress) -> bool:
    return at.result is not None


def check(task: Task, spec: CheckSpec, text: str | None) -> Steps:
    """Asks until enough is known. The result is a `CheckResult`."""
    asked, lm = spec.check, task.lm
    check_run(spec, lm.spec)
    task.engine.check_length(asked.length)
    prompts: list[CheckedPrompt] = []

    def told(at: CheckProgress) -> Event:
        if not at.prompts:
            number = len({(one.task, one.seed) for one in prompts}) + 1
            return _telling(f"Prompt {number}: {at.doing}", at.fraction)
        prompts.extend(at.prompts)
        found = findings(prompts)
        kept = {"aware": _plain(found.aware.by_plan), "agnostic": _plain(found.agnostic.by_plan)}
        return {"kind": "example", "prompts": [one.to_dict() for one in at.prompts], "kept": kept}

    bytes_of = _Bytes(task, asked.length, lambda length: check_nbytes(lm.spec, length))
    steps = check_steps(lm, asked, text, task.chunk_s)
    found = yield from _in_turns(task, bytes_of, steps, told, _has_prompts, _has_prompts)
    return found.to_dict()


def _has_prompts(at: CheckProgress) -> bool:
    return bool(at.prompts)


def _plain(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else vars(found)


class _Bytes:
    """The bytes of one prompt with its plans, asked for and given back prompt by prompt: who waits for bytes waits for
    the end of a prompt, and not of a run that takes hours."""

    def __init__(self, task: Task, length: int, nbytes: Callable[[int], int]) -> None:
        self._task = task
        self._length = length
        self._nbytes = nbytes
        self._held = ExitStack()
        self._is_held = False

    def take(self) -> Generator[Waiting, None, None]:
        """Waits for them, unless they are held already."""
        if self._is_held:
            return
        no_prefill, ledger = PrefillKey(self._task.load, ""), self._task.engine.ledger
        needed = self._nbytes(self._length)
        lease = yield from ledger.admit(self._task.load, lambda _kept: needed, self._refusal, no_prefill)
        self._held.enter_context(lease)
        self._is_held = True

    def give_back(self) -> None:
        self._held.close()
        self._is_held = False

    def _refusal(self, needed: int, most: int) -> DoesNotFitError:
        tokens = largest(self._length, lambda count: self._nbytes(count) <= most)
        return refused(needed, most, f"prompts of up to {tokens:,} tokens" if tokens else None)


def _in_turns(
    task: Task,
    bytes_of: _Bytes,
    steps: Generator[At, None, Result],
    told: Callable[[At], Event],
    is_news: Callable[[At], bool],
    is_over: Callable[[At], bool],
) -> Generator[Output, None, Result]:
    """Where steps are short, several are one turn, so that events of hours stay few; news are always told.

    The first step of a prompt only makes its text, so bytes are asked for after it, and given back where the prompt is
    over.
    """
    began = time.perf_counter()
    try:
        while True:
            try:
                at = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            if is_over(at):
                bytes_of.give_back()
            else:
                yield from bytes_of.take()
            most = _SHARED_TURN_S if task.turns.others_wait() else _TURN_S
            if is_news(at) or time.perf_counter() - began >= most:
                yield told(at)
                began = time.perf_counter()
    finally:
        steps.close()
        bytes_of.give_back()


class _Pace:
    """How long the prompts that are left will take, by those of this run so far, others' turns included."""

    def __init__(self, prompts: int) -> None:
        self._left = prompts
        self._ended = 0
        self._began = time.monotonic()

    def one_more(self) -> None:
        self._left -= 1
        self._ended += 1

    def left(self) -> str:
        """In words, once it is known."""
        if not self._ended:
            return ""
        seconds = (time.monotonic() - self._began) / self._ended * self._left
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"


def _telling(message: str, fraction: float) -> Event:
    return {"kind": "measuring", "message": message, "fraction": round(fraction, 3)}
