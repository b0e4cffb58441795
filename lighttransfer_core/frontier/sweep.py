"""Asks every example of a sweep under every ranking's plans: one prefill, then all plans in a few batches.

A generator of short turns, headless: the command line and the backend both drive it.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import torch

from lighttransfer_core.branches import decode_plans, force_plans
from lighttransfer_core.frontier.render import RenderedExample, render_example
from lighttransfer_core.frontier.results import ExampleResult, Outcome
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.layer_sets import layers_lazy, laziest_first
from lighttransfer_core.laziness import score_layers
from lighttransfer_core.laziness.metric import get_metric
from lighttransfer_core.laziness.trials import AnswerMetric
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import Keep, Prefill, prefill_steps
from lighttransfer_core.speed import versions
from lighttransfer_core.tasks import Task, get_task
from lighttransfer_core.types import ConversionPlan, Window

Orders = dict[Window, dict[str, tuple[int, ...]]]

_ROWS = 64
"""Plans that are decoded at a time; more gain nothing and hold more memory."""
_ANSWER_TOKENS = 24
"""Tokens of a reference that trial metrics read."""


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep has come; `result` where an example has just ended."""

    done: int
    total: int
    doing: str
    result: ExampleResult | None = None


def sweep_header(lm: LoadedModel, spec: SweepSpec) -> SweepHeader:
    """What a results file says first. Raises typed errors where the sweep cannot be run on this model."""
    for name in (*spec.rankings, *spec.trials):
        get_metric(name)
    for name in spec.tasks:
        get_task(name)
    made = datetime.now(tz=UTC).isoformat(timespec="seconds")
    return SweepHeader(spec, lm.spec, versions(), made)


def sweep_steps(
    lm: LoadedModel, spec: SweepSpec, done: Container[ExampleKey] = (), chunk_s: float | None = None
) -> Generator[SweepProgress, None, None]:
    """Every example that is not done yet, in short turns; closing the generator cancels it."""
    keys = spec.keys
    for number, key in enumerate(keys):
        if key in done:
            continue
        told = partial(SweepProgress, number, len(keys))
        example = yield from _example_steps(lm, spec, key, told, chunk_s)
        yield SweepProgress(number + 1, len(keys), _text_of(key), example)


@dataclass(frozen=True, eq=False)
class Asked:
    """An example whose prompt has run. `question` is what plans still read of it; empty where the prompt holds it."""

    rendered: RenderedExample
    prefill: Prefill
    question: list[int]
    reference: list[int]
    text: str


def prepared_steps(
    lm: LoadedModel,
    spec: SweepSpec,
    key: ExampleKey,
    told: partial[SweepProgress],
    query_rows: int | None,
    chunk_s: float | None = None,
) -> Generator[SweepProgress, None, Asked]:
    """Makes an example and runs its prompt, keeping the queries of the last so many rows."""
    task, text = get_task(key.task), _text_of(key)
    rendering = "raw" if task.scored_by == "likelihood" else spec.rendering
    rendered = render_example(lm.tokenizer, task, key.seed, key.length, rendering)
    prompt, question = rendered.context, rendered.question
    if key.question == "aware":
        prompt, question = prompt + question, []
    steps = prefill_steps(lm, torch.tensor([prompt]), Keep(query_rows=query_rows), chunk_s=chunk_s)
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            return Asked(rendered, end.value, question, _reference(lm, rendered), text)
        yield told(f"{text}: {at.tokens_done:,} of {at.num_tokens:,} tokens")


def _example_steps(
    lm: LoadedModel, spec: SweepSpec, key: ExampleKey, told: partial[SweepProgress], chunk_s: float | None
) -> Generator[SweepProgress, None, ExampleResult]:
    needed = [get_metric(name).query_rows(spec.last) for name in spec.rankings]
    rows = None if None in needed else max([spec.last, *(count for count in needed if count is not None)])
    asked = yield from prepared_steps(lm, spec, key, told, rows, chunk_s)
    trials = spec.trials if key.seed < spec.first_seed + spec.trial_examples else ()
    orders: Orders = {}
    for window in spec.windows:
        yield told(f"{asked.text}: rankings")
        orders[window] = _orders(asked, spec, window, trials)
    plans = _plans(orders, spec.shares)
    tried: list[ConversionPlan | None] = [None, *plans]
    task, outcomes, first = get_task(key.task), list[Outcome](), ""
    for start in range(0, len(tried), _ROWS):
        yield told(f"{asked.text}: {start} of {len(tried)} plans")
        some = tried[start : start + _ROWS]
        if task.scored_by == "likelihood":
            outcomes += _by_likelihood(asked, some)
            continue
        answers = decode_plans(asked.prefill, some, _limit(task, spec), asked.question)
        texts = [_text(lm, ids) for ids in answers]
        first = texts[0] if start == 0 else first
        outcomes += [Outcome(task.score(text, asked.rendered.example)) for text in texts]
    found: dict[Window, dict[tuple[int, ...], Outcome]] = {window: {} for window in spec.windows}
    for plan, outcome in zip(plans, outcomes[1:], strict=True):
        found[plan.window][plan.lazy_layers] = outcome
    num_tokens = len(asked.rendered.context) + len(asked.rendered.question)
    return ExampleResult(key, num_tokens, first, outcomes[0], orders, found)


def _orders(asked: Asked, spec: SweepSpec, window: Window, trials: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Every ranking's order of the convertible layers, laziest first."""
    prefill, found = asked.prefill, {}
    for name in spec.rankings:
        found[name] = tuple(score_layers(prefill, window, spec.last, name).ranking())
    for name in trials:
        metric = get_metric(name)
        assert isinstance(metric, AnswerMetric)
        values = metric.given(prefill, window, asked.reference[:_ANSWER_TOKENS], asked.question).values
        found[name] = laziest_first(values.tolist(), prefill.spec.convertible_layers)
    for static in spec.orders:
        if static.window == window:
            found[static.name] = static.order
    return found


def _plans(orders: Orders, shares: Sequence[float]) -> list[ConversionPlan]:
    """Every distinct plan that the rankings propose, and the ones in which all layers stream."""
    found: dict[ConversionPlan, None] = {}
    for window, by_name in orders.items():
        for order in by_name.values():
            for share in shares:
                found[ConversionPlan(order[: layers_lazy(share, len(order))], window)] = None
            found[ConversionPlan(order, window)] = None
    return list(found)


def _by_likelihood(asked: Asked, plans: Sequence[ConversionPlan | None]) -> list[Outcome]:
    forced = force_plans(asked.prefill, plans, asked.reference, asked.question)
    pairs = zip(forced.nll.mean(axis=1), forced.kl.mean(axis=1), strict=True)
    return [Outcome(None, float(nll), float(kl)) for nll, kl in pairs]


def _reference(lm: LoadedModel, rendered: RenderedExample) -> list[int]:
    """The reference answer as the model would write it after what it was given."""
    assert lm.tokenizer is not None
    example = rendered.example
    text = ", ".join(example.answers)
    blank = "" if not example.answer_prefix or example.answer_prefix.endswith(" ") else " "
    ids: list[int] = lm.tokenizer(blank + text, add_special_tokens=False).input_ids
    return ids


def _limit(task: Task, spec: SweepSpec) -> int:
    return task.max_new_tokens if spec.max_new_tokens is None else min(task.max_new_tokens, spec.max_new_tokens)


def _text(lm: LoadedModel, ids: list[int]) -> str:
    assert lm.tokenizer is not None
    return str(lm.tokenizer.decode(ids, skip_special_tokens=True))


def _text_of(key: ExampleKey) -> str:
    return f"{key.task}, {key.length:,} tokens, seed {key.seed}, question-{key.question}"
