"""Checks one plan: needles that lie outside of its window, and passages of a text, until enough is known.

A generator of short turns, headless. Which tasks are asked is found by trying: one that the full model cannot do says
nothing of a plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from lighttransfer_core.errors import TaskLengthError
from lighttransfer_core.frontier.asking import Asked, Seconds, answers_steps, asked_steps
from lighttransfer_core.frontier.bounds import asking_nbytes
from lighttransfer_core.frontier.choice import (
    ANSWER_TOKENS,
    NEEDLES,
    PASSAGES,
    CheckedPrompt,
    CheckResult,
    ChoiceCheck,
    Ended,
    can_do,
    check_positions,
    findings,
    is_narrow,
)
from lighttransfer_core.frontier.render import RenderedExample, render_example
from lighttransfer_core.frontier.spec import Question
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.models import LoadedModel, fit
from lighttransfer_core.steps import retold
from lighttransfer_core.tasks import Task, get_task
from lighttransfer_core.tasks.continuation import Passages
from lighttransfer_core.types import ConversionPlan, ModelSpec

_PASSAGE_EVERY = 5
_MOST_SEEDS = 200
"""Examples that are looked at for one whose fact lands there."""
_ANSWER_SLACK = 4
_PLANS = 3
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class CheckProgress:
    """What is being done, the share of the time that is used, and a prompt that has just ended: once for each way in
    which it was asked."""

    doing: str
    fraction: float
    prompts: tuple[CheckedPrompt, ...] = ()


def check_steps(
    lm: LoadedModel,
    check: ChoiceCheck,
    text: str | None = None,
    chunk_s: Seconds = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[CheckProgress, None, CheckResult]:
    """Asks prompt after prompt, in short turns; closing the generator cancels it.

    Parameters
    ----------
    text
        What the passages are taken from; None: there are none.

    Raises
    ------
    InvalidPlanError
        The plan does not fit the model.
    InvalidPromptError
        Prompts with their answers would outgrow the model's positions.
    """
    check_room(lm.spec, check)
    asking, began, prompts, longest = _Asking(lm, check, text), clock(), list[CheckedPrompt](), 0.0

    def told(doing: str, ended: tuple[CheckedPrompt, ...] = ()) -> CheckProgress:
        return CheckProgress(doing, min((clock() - began) / check.seconds, 1.0), ended)

    while (ended := _ended(check, prompts, clock() - began + longest)) is None:
        started = clock()
        found = yield from retold(asking.prompt_steps(prompts, chunk_s), told)
        if not found:
            ended = "unable"
            break
        prompts.extend(found)
        longest = max(longest, clock() - started)
        yield told("", found)
    return CheckResult(check, tuple(prompts), ended, round(clock() - began, 3))


def check_room(model: ModelSpec, check: ChoiceCheck) -> None:
    """Refuses a check that this model has no room for; errors as `check_steps`."""
    fit.check_plan(check.plan, model)
    check_positions(model, check.length)
    fit.check_room(model, check.length, ANSWER_TOKENS)


def check_nbytes(model: ModelSpec, length: int) -> int:
    """The most bytes that a check holds beside the weights: those of a prompt without its question and with it."""
    keep = Keep(query_rows=1)
    return prefill_nbytes(model, length, keep) + asking_nbytes(model, length, _PLANS, ANSWER_TOKENS, keep)


def _ended(check: ChoiceCheck, prompts: Sequence[CheckedPrompt], seconds: float) -> Ended | None:
    """Why no further prompt is begun; `seconds` is when it would be over."""
    if is_narrow(findings(prompts), check.width):
        return "narrow"
    return "time" if prompts and seconds > check.seconds else None


class _Asking:
    """Which prompt comes next: a needle of the task that was asked least, or each fifth time a passage."""

    def __init__(self, lm: LoadedModel, check: ChoiceCheck, text: str | None) -> None:
        self._lm = lm
        self._check = check
        self._passages = None if text is None else Passages(text=text)
        self._seeds = dict.fromkeys(NEEDLES, check.first_seed)
        self._unplaced = set[str]()

    def prompt_steps(
        self, prompts: Sequence[CheckedPrompt], chunk_s: Seconds
    ) -> Generator[str, None, tuple[CheckedPrompt, ...]]:
        """Empty where nothing is left to ask."""
        needles = [name for name in NEEDLES if can_do(name, prompts) and name not in self._unplaced]
        number = len({(one.task, one.seed) for one in prompts})
        if not needles or number % _PASSAGE_EVERY == _PASSAGE_EVERY - 1:
            passage = sum(one.task == PASSAGES for one in prompts)
            passages, rendered = self._passages, self._passage(passage)
            if passages is not None and rendered is not None:
                return (yield from self._read(passages, rendered, passage, chunk_s))
        for name in sorted(needles, key=lambda name: sum(one.task == name for one in prompts)):
            outside = yield from self._outside(get_task(name))
            if outside is not None:
                seed, rendered = outside
                return (yield from self._asked(get_task(name), rendered, seed, chunk_s))
            self._unplaced.add(name)
        return ()

    def _passage(self, number: int) -> RenderedExample | None:
        if self._passages is None:
            return None
        try:
            return render_example(self._lm.tokenizer, self._passages, number, self._check.length, "raw")
        except TaskLengthError:  # the text is used up
            self._passages = None
            return None

    def _outside(self, task: Task) -> Generator[str, None, tuple[int, RenderedExample] | None]:
        """The next example whose fact is in none of what a streaming layer keeps of the text before the question; None
        where none of many has room."""
        for _ in range(_MOST_SEEDS):
            seed = self._seeds[task.info.name]
            self._seeds[task.info.name] += 1
            rendered = render_example(self._lm.tokenizer, task, seed, self._check.length, self._check.rendering)
            if self._is_outside(rendered):
                return seed, rendered
            yield f"{task.info.title}: looking for a fact outside of the window"
        return None

    def _is_outside(self, rendered: RenderedExample) -> bool:
        example, window = rendered.example, self._check.plan.window
        begin = round(example.depths[0] * len(example.context))
        end = example.context.index(example.answers[0]) + len(example.answers[0])
        behind_it = self._count(example.context[end:])
        before_it = rendered.num_tokens - self._count(example.context[begin:]) - len(rendered.question)
        return behind_it >= window.recent and before_it >= window.sink

    def _count(self, text: str) -> int:
        assert self._lm.tokenizer is not None
        return len(self._lm.tokenizer(text, add_special_tokens=False).input_ids)

    def _read(
        self, task: Task, rendered: RenderedExample, seed: int, chunk_s: Seconds
    ) -> Generator[str, None, tuple[CheckedPrompt, ...]]:
        """A passage, which asks nothing."""
        whole = yield from asked_steps(self._lm, task, rendered, "aware", task.info.title, 1, chunk_s)
        return ((yield from self._answered(whole, seed, "aware")),)

    def _asked(
        self, task: Task, rendered: RenderedExample, seed: int, chunk_s: Seconds
    ) -> Generator[str, None, tuple[CheckedPrompt, ...]]:
        """A needle, both ways: of the cut cache first, since the prompt with its question goes on from that without."""
        title = task.info.title
        without = yield from asked_steps(self._lm, task, rendered, "agnostic", f"{title}, asked later", 1, chunk_s)
        later = yield from self._answered(without, seed, "agnostic")
        whole = yield from asked_steps(self._lm, task, rendered, "aware", title, 1, chunk_s, without.prefill)
        del without  # its keys and values have been copied
        return (yield from self._answered(whole, seed, "aware")), later

    def _answered(self, whole: Asked, seed: int, way: Question) -> Generator[str, None, CheckedPrompt]:
        plan, example = self._check.plan, whole.rendered.example
        asked = replace(whole, reference=whole.reference[:ANSWER_TOKENS])
        everything = ConversionPlan(self._lm.spec.convertible_layers, plan.window)
        answers = yield from answers_steps(asked, [None, plan, everything], len(asked.reference) + _ANSWER_SLACK)
        full, by_plan, by_window = answers.outcomes
        return CheckedPrompt(
            task=whole.task.info.name,
            seed=seed,
            num_tokens=whole.rendered.num_tokens,
            full=full,
            plan=by_plan,
            streaming=by_window,
            expected="" if whole.task is self._passages else ", ".join(example.answers)[:_SHOWN_CHARACTERS],
            said=tuple(text.strip()[:_SHOWN_CHARACTERS] for text in answers.texts[:2]),
            question=way,
        )
