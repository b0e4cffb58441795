"""Asks every example of a sweep under every ranking's plans: one prefill, then all plans in a few batches.

A generator of short turns, headless: the command line and the backend both drive it.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest

from lighttransfer_core.errors import TaskFileError, TaskLengthError
from lighttransfer_core.frontier.asking import Asked, Seconds, answers_steps, prepared_steps
from lighttransfer_core.frontier.bounds import check_names, check_sweep
from lighttransfer_core.frontier.render import render_example
from lighttransfer_core.frontier.results import ExampleResult, Outcome
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.layer_sets import layers_lazy, laziest_first
from lighttransfer_core.laziness import layer_scores_steps
from lighttransfer_core.laziness.metric import get_metric
from lighttransfer_core.laziness.trials import AnswerMetric
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.speed import versions
from lighttransfer_core.steps import retold, timed
from lighttransfer_core.tasks import FileTask, LongBench, Task, get_task
from lighttransfer_core.types import ConversionPlan, Window

Orders = dict[Window, dict[str, tuple[int, ...]]]

_NAMED = 10
"""Questions of a file that are named where something is wrong with them."""
_ANSWER_TOKENS = 24
"""Tokens of a reference that trial metrics read."""


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep has come.

    Attributes
    ----------
    result
        Where an example has just ended.
    goes_on
        Whether its prompt is kept then, since the next example asks the same in the other way.
    """

    done: int
    total: int
    doing: str
    result: ExampleResult | None = None
    goes_on: bool = False


def sweep_header(lm: LoadedModel, spec: SweepSpec) -> SweepHeader:
    """What a results file says first. Raises typed errors where the sweep cannot be run on this model."""
    check_names(spec)
    check_sweep(lm.spec, spec)
    check_files(lm, spec)
    made = datetime.now(tz=UTC).isoformat(timespec="seconds")
    return SweepHeader(spec, lm.spec, versions(), made)


def check_files(lm: LoadedModel, spec: SweepSpec) -> None:
    """Refuses files of which a question is too long or too short, before any of them is asked. Raises TaskFileError."""
    for task in map(get_task, spec.tasks):
        if isinstance(task, FileTask | LongBench):
            _check_file(lm, spec, task)


def _check_file(lm: LoadedModel, spec: SweepSpec, task: Task) -> None:
    long, short = list[int](), list[int]()
    largest = max(window.size for window in spec.windows)
    for seed in range(spec.first_seed, spec.first_seed + spec.examples):
        try:
            rendered = render_example(lm.tokenizer, task, seed, max(spec.lengths), spec.rendering)
        except TaskLengthError:
            long.append(seed)
            continue
        scored = len(rendered.context) if "agnostic" in spec.questions else rendered.num_tokens
        if scored <= largest:
            short.append(seed)
    wrong = {f"do not fit {max(spec.lengths):,} tokens": long, f"lose nothing to a window of {largest:,} tokens": short}
    told = [f"{what}: {', '.join(map(str, seeds[:_NAMED]))}" for what, seeds in wrong.items() if seeds]
    if told:
        raise TaskFileError(
            f"Questions of {task.info.name} {'; and some '.join(told)}. Leave them out of the file, or change lengths "
            "and windows."
        )


def sweep_steps(
    lm: LoadedModel, spec: SweepSpec, done: Container[ExampleKey] = (), chunk_s: Seconds = None
) -> Generator[SweepProgress, None, None]:
    """Every example that is not done yet, in short turns; closing the generator cancels it.

    What is asked both ways has one prefill: the second way goes on from what the two have in common.
    """
    keys = spec.keys
    left = [(number, key) for number, key in enumerate(keys) if key not in done]
    earlier: Prefill | None = None
    for (number, key), following in zip_longest(left, left[1:]):
        asking = _example_steps(lm, spec, key, chunk_s, earlier)
        earlier = None  # once its keys and values have been copied nobody holds it
        (example, prefill), seconds = yield from retold(timed(asking), partial(SweepProgress, number, len(keys)))
        goes_on = following is not None and replace(following[1], question=key.question) == key
        earlier = prefill if goes_on else None
        del prefill
        ended = replace(example, seconds=round(seconds, 3))
        yield SweepProgress(number + 1, len(keys), key.text, ended, goes_on)


def _example_steps(
    lm: LoadedModel, spec: SweepSpec, key: ExampleKey, chunk_s: Seconds, earlier: Prefill | None
) -> Generator[str, None, tuple[ExampleResult, Prefill]]:
    asked = yield from prepared_steps(lm, key, spec.rendering, query_rows(spec), chunk_s, earlier)
    del earlier
    trials = spec.trials if key.seed < spec.first_seed + spec.trial_examples else ()
    orders: Orders = {}
    for window in spec.windows:
        orders[window] = yield from _order_steps(asked, spec, window, trials)
    plans = _plans(orders, spec)
    answers = yield from answers_steps(asked, [None, *plans], spec.max_new_tokens)
    found: dict[Window, dict[tuple[int, ...], Outcome]] = {window: {} for window in spec.windows}
    for plan, outcome in zip(plans, answers.outcomes[1:], strict=True):
        found[plan.window][plan.lazy_layers] = outcome
    said = answers.texts[0] if answers.texts else ""
    result = ExampleResult(key, asked.rendered.num_tokens, said, answers.outcomes[0], orders, found)
    return result, asked.prefill


def query_rows(spec: SweepSpec) -> int | None:
    """Of how many last rows the queries are kept for the rankings; None: of all."""
    needed = [get_metric(name).query_rows(spec.last) for name in spec.rankings]
    return None if None in needed else max([spec.last, *(count for count in needed if count is not None)])


def _order_steps(
    asked: Asked, spec: SweepSpec, window: Window, trials: Sequence[str]
) -> Generator[str, None, dict[str, tuple[int, ...]]]:
    """Every ranking's order of the convertible layers, laziest first, one at a time."""
    prefill, found = asked.prefill, dict[str, tuple[int, ...]]()
    for name in spec.rankings:
        yield f"{asked.text}: {name}"
        scoring = layer_scores_steps(prefill, window, spec.last, name)
        scores = yield from retold(scoring, partial("{}: {}, {}".format, asked.text, name))
        found[name] = tuple(scores.ranking())
    for name in trials:
        yield f"{asked.text}: {name}"
        metric = get_metric(name)
        assert isinstance(metric, AnswerMetric)
        values = metric.given(prefill, window, asked.reference[:_ANSWER_TOKENS], asked.question).values
        found[name] = laziest_first(values.tolist(), prefill.spec.convertible_layers)
    for static in spec.orders:
        if static.window == window:
            found[static.name] = static.order
    return found


def _plans(orders: Orders, spec: SweepSpec) -> list[ConversionPlan]:
    """Every distinct plan that the rankings propose, the sets that were given, and all layers streaming."""
    sets = {(one.name, one.window): one.lazy for one in spec.orders if one.lazy is not None}
    found: dict[ConversionPlan, None] = {}
    for window, by_name in orders.items():
        for name, order in by_name.items():
            alone = sets.get((name, window))
            counts = [layers_lazy(share, len(order)) for share in spec.shares] if alone is None else [alone]
            for lazy in counts:
                found[ConversionPlan(order[:lazy], window)] = None
            found[ConversionPlan(order, window)] = None
    return list(found)
