"""What runs do, as generators: load a model, prefill and score a prompt, compare two lanes.

Each `yield` ends a turn. Nothing that a thread holds (a lock, a grad mode, a context variable) is held across one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from lighttransfer_core.comparison import compare_steps, summarize
from lighttransfer_core.cost.formulas import kv_bytes_per_layer
from lighttransfer_core.errors import DoesNotFitError, InvalidPromptError
from lighttransfer_core.generation import check_plan
from lighttransfer_core.laziness import get_metric, score_layers
from lighttransfer_core.models import LoadedModel, RenderedPrompt
from lighttransfer_core.prefill import Keep, Prefill, prefill_nbytes, prefill_steps
from lighttransfer_core.service import measure_jobs
from lighttransfer_core.service.admission import PrefillKey
from lighttransfer_core.service.engine import Engine, largest, max_tokens, prefill_key
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.specs import (
    CompareSpec,
    LoadSpec,
    MeasureSpec,
    PrefillSpec,
    RunSpec,
    ThroughputSpec,
    spec_identity,
)
from lighttransfer_core.service.worker import JobFactory, Steps, Turns, Waiting
from lighttransfer_core.transcript import Continuation
from lighttransfer_core.types import CompareEvent, ConversionPlan, ModelSpec

_CHUNK_S = 1.0
_SHARED_CHUNK_S = 0.25
_TAIL_GROWTH = 1.25
_SHOWN_TOKENS = 32


class JobEngine(Engine):
    """The engine with what can be run on it."""

    def job(self, spec: RunSpec, text: str | None) -> JobFactory:
        """The job of a run; `text` is the prompt that the spec names."""

        def build(turns: Turns) -> Steps:
            return _typed_memory_errors(_steps(self, spec, text or "", turns))

        return build


@dataclass(frozen=True)
class _Task:
    """What one run works with; what it holds is given back when the stack closes."""

    engine: Engine
    turns: Turns
    stack: ExitStack
    load: LoadSpec
    lm: LoadedModel


def _steps(engine: Engine, spec: RunSpec, text: str, turns: Turns) -> Steps:
    load = engine.load_key(spec.load_spec())
    with ExitStack() as stack:
        if load not in engine.ledger.models:
            yield _loading(f"Loading {load.model}", 0.0)
        report = _reporting(turns)
        task = _Task(engine, turns, stack, load, stack.enter_context(engine.model(load, report)))
        if isinstance(spec, LoadSpec):
            return {"spec": task.lm.spec.to_dict()}
        if isinstance(spec, PrefillSpec):
            return (yield from _prefill_and_score(task, spec, text))
        if isinstance(spec, MeasureSpec):
            return (yield from measure_jobs.measure(engine.ledger, load, task.lm, spec, stack))
        if isinstance(spec, ThroughputSpec):
            return (yield from _throughput(task, spec, text))
        return (yield from _compare(task, spec, text))


def _loading(message: str, fraction: float) -> Event:
    return {"kind": "loading", "message": message, "fraction": fraction}


def _reporting(turns: Turns) -> Callable[[str, float], None]:
    """Loading is one long turn, so what it reports goes to every run that waits for the model."""
    return lambda message, fraction: turns.announce(_loading(message, fraction))


def _prefill_and_score(task: _Task, spec: PrefillSpec, text: str) -> Steps:
    get_metric(spec.metric)
    prompt = task.engine.render(task.lm, text, spec)
    prefill, key, reused = yield from _obtain_prefill(task, spec, prompt, extra=0)
    yield {"kind": "scoring", "message": "Scoring the layers"}
    began = time.perf_counter()
    scores = score_layers(prefill, window=spec.window, last=spec.last, metric=spec.metric)
    return {
        "num_tokens": prefill.num_tokens,
        "prefill_s": prefill.seconds,
        "score_s": time.perf_counter() - began,
        "reused": reused,
        "prefill_nbytes": prefill.nbytes,
        "kv_bytes_per_layer": list(kv_bytes_per_layer(prefill.spec, None, prefill.num_tokens)),
        "scores": scores.to_dict(),
        "spec": prefill.spec.to_dict(),
        "tokens_head": prompt.tokens[:_SHOWN_TOKENS],
        "tokens_tail": prompt.tokens[-_SHOWN_TOKENS:],
        "identity": key.identity,
    }


def _obtain_prefill(
    task: _Task, spec: PrefillSpec, prompt: RenderedPrompt, extra: int
) -> Generator[Event | Waiting, None, tuple[Prefill, PrefillKey, bool]]:
    """The prefill, kept or made now, with the bytes for it and for `extra` granted to the task; and whether kept."""
    ledger, keep = task.engine.ledger, _keep(spec)
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


def _follow(engine: Engine, key: PrefillKey) -> Generator[Event | Waiting, None, None]:
    """Watch another run make the prefill that this one needs too."""
    seen: Event | None = None
    while (progress := engine.under_way.get(key)) is not None:
        yield Waiting(1) if progress is seen else progress
        seen = progress


def _run_prefill(task: _Task, prompt: RenderedPrompt, keep: Keep, key: PrefillKey) -> Generator[Event, None, Prefill]:
    # long chunks compute faster; short ones let the others have their turns
    chunk_s = _SHARED_CHUNK_S if task.turns.others_wait() else _CHUNK_S
    steps = prefill_steps(task.lm, prompt.input_ids, keep, chunk_s=chunk_s)
    under_way = task.engine.under_way
    try:
        event: Event = {"kind": "prefill", "tokens_done": 0, "num_tokens": prompt.num_tokens}
        while True:
            under_way[key] = event
            yield event
            try:
                progress = next(steps)
            except StopIteration as end:
                made: Prefill = end.value
                return made
            event = {"kind": "prefill", "tokens_done": progress.tokens_done, "num_tokens": progress.num_tokens}
    finally:
        under_way.pop(key, None)
        steps.close()


def _compare(task: _Task, spec: CompareSpec, text: str) -> Steps:
    model = task.lm.spec
    check_plan(spec.plan, model)
    prompt = task.engine.render(task.lm, text, spec.prefill)
    _check_room(model, prompt.num_tokens, spec.max_new_tokens)
    extra = branches_nbytes(model, spec.plan, prompt.num_tokens, spec.max_new_tokens)
    prefill, key, _kept = yield from _obtain_prefill(task, spec.prefill, prompt, extra)
    events: list[CompareEvent] = []
    agreed = both = 0
    steps = compare_steps(prefill, None, spec.plan, spec.max_new_tokens, record=True)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            lanes = dict(zip(("a", "b"), end.value, strict=True))
            break
        events.append(event)
        if event.a is not None and event.b is not None:
            both += 1
            agreed += event.a.token_id == event.b.token_id
        yield {
            "kind": "step",
            **event.to_dict(),
            "agreement": agreed / both,
            **_formulas(model, spec.plan, prefill.num_tokens + event.step),
        }
    kept = _keep_lanes(task, spec_identity(spec), lanes)
    result = _comparison(model, spec.plan, prefill.num_tokens, events)
    return {**result, "identity": key.identity, "lanes": kept}


def _throughput(task: _Task, spec: ThroughputSpec, text: str) -> Steps:
    check_plan(spec.plan, task.lm.spec)
    prompt = task.engine.render(task.lm, text, spec.prefill)
    room = task.engine.ledger.limit(task.load) - prefill_nbytes(task.lm.spec, prompt.num_tokens, _keep(spec.prefill))
    extra = measure_jobs.batches_nbytes(task.lm.spec, spec, prompt.num_tokens, room)
    prefill, _key, _reused = yield from _obtain_prefill(task, spec.prefill, prompt, extra)
    return (yield from measure_jobs.throughput(prefill, spec))


def _keep(spec: PrefillSpec) -> Keep:
    return Keep(spec.query_rows, spec.query_layers, spec.query_host)


def _keep_lanes(task: _Task, run: str, lanes: dict[str, Continuation | None]) -> dict[str, str]:
    """What each lane decoded stays for the attention maps, as long as there is room; its identity by lane."""
    kept = {}
    for lane, continuation in lanes.items():
        if continuation is not None:
            kept[lane] = f"{run}.{lane}"
            task.engine.ledger.prefills.put(PrefillKey(task.load, kept[lane]), continuation, continuation.nbytes)
    return kept


def _formulas(spec: ModelSpec, plan: ConversionPlan, tokens: int) -> dict[str, list[int]]:
    """KV bytes per layer after the prompt and the decoded tokens that were fed back."""
    return {
        "kv_formula_a": list(kv_bytes_per_layer(spec, None, tokens)),
        "kv_formula_b": list(kv_bytes_per_layer(spec, plan, tokens)),
    }


def _comparison(spec: ModelSpec, plan: ConversionPlan, num_tokens: int, events: list[CompareEvent]) -> dict[str, Any]:
    lanes = {"a": [event.a for event in events if event.a], "b": [event.b for event in events if event.b]}
    result: dict[str, Any] = {"comparison": summarize(events).to_dict(), "spec": spec.to_dict()}
    for lane, plan_of_lane in (("a", None), ("b", plan)):
        steps = lanes[lane]
        result[f"latency_{lane}"] = [step.latency_s for step in steps]
        result[f"kv_{lane}"] = list(steps[-1].kv_bytes)
        result[f"kv_formula_{lane}"] = list(kv_bytes_per_layer(spec, plan_of_lane, num_tokens + steps[-1].step))
        result[f"text_{lane}"] = "".join(step.text for step in steps)
    return result


def branches_nbytes(spec: ModelSpec, plan: ConversionPlan, num_tokens: int, new_tokens: int) -> int:
    """The most bytes that the lanes of a comparison hold beside their prefill: both, lane b on lane a's text, and the
    queries, keys and log-sum-exp of both lanes' tokens."""
    tail = kv_bytes_per_layer(spec, None, new_tokens)
    row = spec.num_heads * (spec.head_dim * spec.dtype_bytes + 4) + spec.kv_bytes_per_token_per_layer // 2
    recorded = 2 * new_tokens * spec.num_layers * row
    copied = kv_bytes_per_layer(spec, plan, num_tokens + new_tokens)
    own = [
        copied[layer] if layer in plan.lazy_layers or spec.native_windows[layer] is not None else tail[layer]
        for layer in range(spec.num_layers)
    ]
    return int(_TAIL_GROWTH * (sum(tail) + 2 * sum(own))) + recorded


def _check_room(spec: ModelSpec, num_tokens: int, new_tokens: int) -> None:
    if num_tokens + new_tokens > spec.max_positions:
        left = max(spec.max_positions - num_tokens, 0)
        raise InvalidPromptError(
            f"The prompt has {num_tokens:,} tokens and {new_tokens:,} new ones are asked for, but {spec.name} has "
            f"{spec.max_positions:,} positions: ask for at most {left:,} new tokens, or use a shorter prompt."
        )


def _refusal(spec: ModelSpec, num_tokens: int, keep: Keep, extra: int, needed: int, most: int) -> DoesNotFitError:
    room = most - extra
    rows = largest(num_tokens - 1, lambda n: n < 1 or prefill_nbytes(spec, num_tokens, Keep(n)) <= room)
    tokens = max_tokens(spec, room, keep)
    offer = None
    if keep.query_rows is None and rows > 0 and prefill_nbytes(spec, num_tokens, Keep(rows)) <= room:
        offer = f"keep the queries of the last {rows:,} tokens only (query_rows={rows})"
    elif tokens > 0:
        offer = f"a prompt of {tokens:,} tokens instead of {num_tokens:,}"
    return DoesNotFitError(
        f"This run would hold {needed:,} bytes and {max(most, 0):,} can be given beside the weights."
        + (f" What fits: {offer}." if offer else " No prompt fits: start the backend with a larger --budget."),
        offer,
    )


def _typed_memory_errors(steps: Steps) -> Steps:
    """The device's own "out of memory" as the error that says what to do; the estimate does not know activations."""
    try:
        return (yield from steps)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise DoesNotFitError(
            f"The device ran out of memory ({error}).", "a shorter prompt, or fewer runs at the same time"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error) or "out of memory" in str(error)  # the CPU allocator has no class of its own
