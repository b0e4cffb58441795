"""One example in short turns: its prompt runs once, then plans answer it, or read its reference, as one batch.

What a turn is about is what it yields, in words. It knows neither rankings nor results files.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from lighttransfer_core.attention import input_device
from lighttransfer_core.branches import decode_plans_steps, force_plans_steps
from lighttransfer_core.frontier.render import RenderedExample, render_example
from lighttransfer_core.frontier.results import Outcome
from lighttransfer_core.frontier.spec import ExampleKey, Question
from lighttransfer_core.keep import Keep
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import Prefill, prefill_steps
from lighttransfer_core.steps import retold
from lighttransfer_core.tasks import Task, get_task
from lighttransfer_core.token_ids import shared_tokens
from lighttransfer_core.types import ConversionPlan, Rendering

Seconds = float | Callable[[], float] | None
Result = TypeVar("Result")


@dataclass(frozen=True)
class TurnSize:
    """What one turn takes at most, the same for every run on such a device, so that results do not depend on others.

    Attributes
    ----------
    rows
        Plans that are decoded as one batch.
    tokens
        Tokens of a question or a reference that are read at a time, all rows together.
    """

    rows: int
    tokens: int


def turn_size(device: str) -> TurnSize:
    """By the type of the device. On two CPU cores such turns take a model of 135 million parameters a quarter of a
    second to a second, and larger ones are no faster."""
    return TurnSize(32, 256) if device == "cpu" else TurnSize(64, 8192)


@dataclass(frozen=True, eq=False)
class Asked:
    """An example whose prompt has run. `question` is what plans still read of it; empty where the prompt holds it."""

    lm: LoadedModel
    task: Task
    rendered: RenderedExample
    prefill: Prefill
    question: list[int]
    reference: list[int]
    text: str


def prepared_steps(
    lm: LoadedModel,
    key: ExampleKey,
    rendering: Rendering,
    query_rows: int | None,
    chunk_s: Seconds = None,
    earlier: Prefill | None = None,
) -> Generator[str, None, Asked]:
    """Makes an example and runs its prompt, keeping the last so many rows' queries; `earlier` as of `asked_steps`."""
    task = get_task(key.task)
    # a text that is only read stands in no chat
    wanted = "raw" if task.scored_by == "likelihood" else rendering
    rendered = render_example(lm.tokenizer, task, key.seed, key.length, wanted)
    return (yield from asked_steps(lm, task, rendered, key.question, key.text, query_rows, chunk_s, earlier))


def asked_steps(
    lm: LoadedModel,
    task: Task,
    rendered: RenderedExample,
    way: Question,
    text: str,
    query_rows: int | None,
    chunk_s: Seconds = None,
    earlier: Prefill | None = None,
) -> Generator[str, None, Asked]:
    """The same of an example that is rendered already; `text` is what it is called. The first turn computes nothing.

    Parameters
    ----------
    earlier
        A prefill with the same beginning, which is taken over.
    """
    prompt, question = rendered.context, rendered.question
    if way == "aware":
        prompt, question = prompt + question, []
    taken_over = 0 if earlier is None else shared_tokens(earlier.input_ids, torch.tensor([prompt]))
    yield f"{text}: {rendered.num_tokens - taken_over:,} tokens to read"
    steps = prefill_steps(lm, torch.tensor([prompt]), Keep(query_rows=query_rows), chunk_s=chunk_s, earlier=earlier)
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            return Asked(lm, task, rendered, end.value, question, _reference(lm, rendered), text)
        yield f"{text}: {at.tokens_done:,} of {at.num_tokens:,} tokens"


@dataclass(frozen=True)
class Answers:
    """What plans made of an example, in their order; `texts` are what they wrote, none where they only read."""

    outcomes: list[Outcome]
    texts: list[str]


def answers_steps(
    asked: Asked, plans: Sequence[ConversionPlan | None], max_new_tokens: int | None
) -> Generator[str, None, Answers]:
    """Every plan's answer with its score, or how likely it finds the reference, a forward pass at a time."""
    size = turn_size(input_device(asked.lm.model).type)
    found = Answers([], [])
    for start in range(0, len(plans), size.rows):
        some, told = plans[start : start + size.rows], f"{asked.text}: {start} of {len(plans)} answers"
        yield told
        if asked.task.scored_by == "likelihood":
            reading = force_plans_steps(asked.prefill, some, asked.reference, asked.question, size.tokens)
            forced = yield from _saying(told, reading)
            pairs = zip(forced.nll.mean(axis=1), forced.kl.mean(axis=1), strict=True)
            found.outcomes.extend(Outcome(None, float(nll), float(kl)) for nll, kl in pairs)
            continue
        limit = answer_limit(asked.task, max_new_tokens)
        decoding = decode_plans_steps(asked.prefill, some, limit, asked.question, size.tokens)
        texts = [_text(asked.lm, ids) for ids in (yield from _saying(told, decoding))]
        found.texts.extend(texts)
        found.outcomes.extend(Outcome(asked.task.score(text, asked.rendered.example)) for text in texts)
    return found


def answer_limit(task: Task, max_new_tokens: int | None) -> int:
    """Tokens that an answer may have."""
    return task.max_new_tokens if max_new_tokens is None else min(task.max_new_tokens, max_new_tokens)


def _saying(said: str, steps: Generator[None, None, Result]) -> Generator[str, None, Result]:
    """The turns of `steps`, each with the same words on it."""
    return (yield from retold(steps, lambda _turn: said))


def _reference(lm: LoadedModel, rendered: RenderedExample) -> list[int]:
    """The reference answer as the model would write it after what it was given."""
    assert lm.tokenizer is not None
    example = rendered.example
    text = ", ".join(example.answers)
    blank = "" if not example.answer_prefix or example.answer_prefix.endswith(" ") else " "
    ids: list[int] = lm.tokenizer(blank + text, add_special_tokens=False).input_ids
    return ids


def _text(lm: LoadedModel, ids: list[int]) -> str:
    assert lm.tokenizer is not None
    return str(lm.tokenizer.decode(ids, skip_special_tokens=True))
