"""What runs do, as generators: load a model, prefill and score a prompt or several, compare lanes.

Each `yield` ends a turn. Nothing that a thread holds (a lock, a grad mode, a context variable) is held across one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch

from lighttransfer_core.cost.formulas import kv_bytes_per_layer
from lighttransfer_core.errors import DoesNotFitError
from lighttransfer_core.laziness import get_metric, layer_scores_steps
from lighttransfer_core.service import sweep_jobs
from lighttransfer_core.service.compare_job import compare
from lighttransfer_core.service.engine import Engine
from lighttransfer_core.service.measure_jobs import decode_batches, measure
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.score_job import score_prompts
from lighttransfer_core.service.scoring import before_question_steps
from lighttransfer_core.service.specs import (
    CheckSpec,
    LoadSpec,
    MeasureSpec,
    PrefillSpec,
    RunSpec,
    ScoreSpec,
    SweepRunSpec,
    ThroughputSpec,
)
from lighttransfer_core.service.task import Task, obtain_prefill
from lighttransfer_core.service.turns import JobFactory, Steps, Turns
from lighttransfer_core.steps import retold, timed

_SHOWN_TOKENS = 32


class JobEngine(Engine):
    """The engine with what can be run on it."""

    def check(self, spec: RunSpec) -> None:
        super().check(spec)
        if isinstance(spec, SweepRunSpec | CheckSpec):
            loaded = self.loaded_model(spec.load_spec())
            sweep_jobs.check_run(spec, None if loaded is None else loaded.spec)

    def job(self, spec: RunSpec, texts: Sequence[str]) -> JobFactory:
        """The job of a run; `texts` are those that the spec names by their hashes."""

        def build(turns: Turns) -> Steps:
            return _typed_memory_errors(_steps(self, spec, texts, turns))

        return build


def _steps(engine: Engine, spec: RunSpec, texts: Sequence[str], turns: Turns) -> Steps:
    load = engine.load_key(spec.load_spec())
    with ExitStack() as stack:
        if load not in engine.ledger.models:
            yield _loading(f"Loading {load.model}", 0.0)
        report = _reporting(turns)
        task = Task(engine, turns, stack, load, stack.enter_context(engine.model(load, report)))
        if isinstance(spec, LoadSpec):
            return {"spec": task.lm.spec.to_dict()}
        if isinstance(spec, PrefillSpec):
            return (yield from _prefill_and_score(task, spec, texts[0]))
        if isinstance(spec, MeasureSpec):
            return (yield from measure(task, spec))
        if isinstance(spec, ThroughputSpec):
            return (yield from decode_batches(task, spec, texts[0]))
        if isinstance(spec, ScoreSpec):
            return (yield from score_prompts(task, spec, texts))
        if isinstance(spec, SweepRunSpec):
            return (yield from sweep_jobs.sweep(task, spec))
        if isinstance(spec, CheckSpec):
            return (yield from sweep_jobs.check(task, spec, texts[0] if texts else None))
        return (yield from compare(task, spec, texts))


def _loading(message: str, fraction: float) -> Event:
    return {"kind": "loading", "message": message, "fraction": fraction}


def _scoring(message: str) -> Event:
    return {"kind": "scoring", "message": message}


def _reporting(turns: Turns) -> Callable[[str, float], None]:
    """Loading is one long turn, so what it reports goes to every run that waits for the model."""
    return lambda message, fraction: turns.announce(_loading(message, fraction))


def _prefill_and_score(task: Task, spec: PrefillSpec, text: str) -> Steps:
    get_metric(spec.metric)
    prompt = task.engine.render(task.lm, text, spec)
    prefill, key, reused = yield from obtain_prefill(task, spec, prompt, extra=0)
    yield _scoring("Scoring the layers")
    scores, score_s = yield from retold(
        timed(layer_scores_steps(prefill, spec.window, spec.last, spec.metric)),
        lambda doing: _scoring(f"Scoring the layers: {doing}"),
    )
    yield _scoring("Scoring the layers before the question")
    tokens = task.engine.tokens_before_question(task.lm, text, spec)
    before = yield from retold(
        before_question_steps(prefill, tokens, spec.window, spec.last, spec.metric),
        lambda doing: _scoring(f"Scoring the layers before the question: {doing}"),
    )
    return {
        "num_tokens": prefill.num_tokens,
        "prefill_s": prefill.seconds,
        "taken_over": prefill.taken_over,
        "score_s": score_s,
        "reused": reused,
        "prefill_nbytes": prefill.nbytes,
        "kv_bytes_per_layer": list(kv_bytes_per_layer(prefill.spec, None, prefill.num_tokens)),
        "scores": scores.to_dict(),
        "before": before.to_dict(),
        "spec": prefill.spec.to_dict(),
        "tokens_head": prompt.tokens[:_SHOWN_TOKENS],
        "tokens_tail": prompt.tokens[-_SHOWN_TOKENS:],
        "identity": key.identity,
    }


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
