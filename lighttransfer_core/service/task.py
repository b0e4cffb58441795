"""What one run works with, and the prefill that most runs begin with: kept, followed, or made now.

Each `yield` ends a turn. Nothing that a thread holds (a lock, a grad mode, a context variable) is held across one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass

from lighttransfer_core.errors import DoesNotFitError
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.models import LoadedModel, RenderedPrompt
from lighttransfer_core.prefill import Prefill, prefill_steps
from lighttransfer_core.service.admission import PrefillKey
from lighttransfer_core.service.engine import Engine, largest, max_tokens, prefill_key
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.specs import LoadSpec, PrefillSpec
from lighttransfer_core.service.turns import Output, Resting, Turns
from lighttransfer_core.types import ModelSpec

_CHUNK_S = 1.0
_SHARED_CHUNK_S = 0.25
_FOLLOWING_S = 0.05


@dataclass(frozen=True)
class Task:
    """What one run works with; what it holds is given back when the stack closes."""

    engine: Engine
    turns: Turns
    stack: ExitStack
    load: LoadSpec
    lm: LoadedModel

    def chunk_s(self) -> float:
        """Long chunks compute faster; short ones let the others have their turns."""
        return _SHARED_CHUNK_S if self.turns.others_wait() else _CHUNK_S


def obtain_prefill(
    task: Task, spec: PrefillSpec, prompt: RenderedPrompt, extra: int
) -> Generator[Output, None, tuple[Prefill, PrefillKey, bool]]:
    """The prefill, kept or made now, with the bytes for it and for `extra` granted to the task; and whether kept."""
    ledger, keep = task.engine.ledger, Keep(spec.query_rows, spec.query_layers, spec.query_host)
    key = prefill_key(task.load, task.lm, prompt, keep)
    nbytes = prefill_nbytes(task.lm.spec, prompt.num_tokens, keep)

    def refusal(needed: int, most: int) -> DoesNotFitError:
        return _refusal(task.lm.spec, prompt.num_tokens, keep, extra, needed, most)

    while True:
        yield from _follow(task.engine, key)
        lease = yield from ledger.admit(task.load, lambda kept: extra + (0 if kept else nbytes), refusal, key)
        if key not in task.engine.under_way:
            break
        ledger.release(lease)
    task.stack.enter_context(lease)
    kept: Prefill | None = ledger.prefills.get(key)
    if kept is not None:
        return kept, key, True
    made = yield from _run_prefill(task, prompt, keep, key)
    lease.keep(key, made, made.nbytes, reserved=nbytes)
    return made, key, False


def _follow(engine: Engine, key: PrefillKey) -> Generator[Output, None, None]:
    """Watch another run make the prefill that this one needs too."""
    seen: Event | None = None
    while (progress := engine.under_way.get(key)) is not None:
        yield Resting(_FOLLOWING_S) if progress is seen else progress
        seen = progress


def prefill_in_turns(task: Task, prompt: RenderedPrompt, keep: Keep) -> Generator[Event, None, Prefill]:
    """A new prefill, a chunk at a time, for which the bytes have been granted.

    What it begins with is taken over from a kept prefill, if one begins alike.
    """
    beginning = task.engine.longest_beginning(task.load, prompt.input_ids)
    with ExitStack() as stack:
        earlier = None if beginning is None else stack.enter_context(task.engine.ledger.using(beginning))
        steps = prefill_steps(task.lm, prompt.input_ids, keep, chunk_s=task.chunk_s, earlier=earlier)
        stack.callback(steps.close)
        done = 0
        while True:
            yield {"kind": "prefill", "tokens_done": done, "num_tokens": prompt.num_tokens}
            try:
                done = next(steps).tokens_done
            except StopIteration as end:
                made: Prefill = end.value
                return made


def _run_prefill(task: Task, prompt: RenderedPrompt, keep: Keep, key: PrefillKey) -> Generator[Event, None, Prefill]:
    """The same, for others who need it to follow."""
    steps, under_way = prefill_in_turns(task, prompt, keep), task.engine.under_way
    try:
        while True:
            try:
                under_way[key] = next(steps)
            except StopIteration as end:
                made: Prefill = end.value
                return made
            yield under_way[key]
    finally:
        under_way.pop(key, None)
        steps.close()


def _refusal(spec: ModelSpec, num_tokens: int, keep: Keep, extra: int, needed: int, most: int) -> DoesNotFitError:
    room = most - extra
    rows = largest(num_tokens - 1, lambda n: n < 1 or prefill_nbytes(spec, num_tokens, Keep(n)) <= room)
    tokens = max_tokens(spec, room, keep)
    offer, fewer = None, "ask for fewer new tokens or lanes, or " if extra else ""
    if keep.query_rows is None and rows > 0 and prefill_nbytes(spec, num_tokens, Keep(rows)) <= room:
        offer = f"keep the queries of the last {rows:,} tokens only (query_rows={rows})"
    elif tokens > 0:
        offer = f"a prompt of {tokens:,} tokens instead of {num_tokens:,}"
    return DoesNotFitError(
        f"This run would hold {needed:,} bytes and {max(most, 0):,} can be given beside the weights."
        + (f" What fits: {offer}." if offer else f" No prompt fits: {fewer}start the backend with a larger --budget."),
        offer,
    )
