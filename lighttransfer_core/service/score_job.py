"""What a run over several prompts does in turns: prefill each, score its layers, and let go of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from lighttransfer_core.errors import DoesNotFitError, InvalidPromptError
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.laziness import get_metric, layer_scores_steps
from lighttransfer_core.models import RenderedPrompt
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.service.answers import LightScores, PromptScores
from lighttransfer_core.service.engine import max_tokens, prefill_key
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.scoring import before_question_steps
from lighttransfer_core.service.specs import ScoreSpec
from lighttransfer_core.service.task import Task, prefill_in_turns
from lighttransfer_core.service.turns import Output, Steps
from lighttransfer_core.steps import retold


@dataclass(frozen=True)
class _Asked:
    """One of the prompts; `before` tokens of it come before its question, and `keep` is what its scores need."""

    number: int
    of: int
    prompt: RenderedPrompt
    before: int | None
    keep: Keep

    def event(self, what: str, done: float) -> Event:
        fraction = round((self.number - 1 + done) / self.of, 3)
        return {"kind": "measuring", "message": f"Prompt {self.number} of {self.of}: {what}", "fraction": fraction}

    def scoring(self, doing: str) -> Event:
        return self.event(f"scoring the layers, {doing}", 1.0)


def score_prompts(task: Task, spec: ScoreSpec, texts: Sequence[str]) -> Steps:
    """Scores every prompt. The result holds a `PromptScores` for each, in the order asked."""
    asked = [_asked(task, spec, number, text) for number, text in enumerate(texts, start=1)]
    found = []
    for one, name in zip(asked, spec.prompts, strict=True):
        with ExitStack() as stack:
            prefill = yield from _prefill(replace(task, stack=stack), one)
            yield one.event("scoring the layers", 1.0)
            scored = layer_scores_steps(prefill, spec.window, spec.last, spec.metric)
            aware = yield from retold(scored, one.scoring)
            scored_before = before_question_steps(prefill, one.before, spec.window, spec.last, spec.metric)
            before = yield from retold(scored_before, one.scoring)
            found.append(PromptScores(name, LightScores.of(aware), before).to_dict())
            del prefill
    return {"prompts": found, "spec": task.lm.spec.to_dict()}


def _asked(task: Task, spec: ScoreSpec, number: int, text: str) -> _Asked:
    """Rendered before anything runs, so that a prompt that cannot be read is told at once."""
    try:
        prompt = task.engine.render(task.lm, text, spec)
        before = task.engine.tokens_before_question(task.lm, text, spec)
    except InvalidPromptError as error:
        raise InvalidPromptError(f"Prompt {number} of {len(spec.prompts)}: {error}") from error
    rows = get_metric(spec.metric).query_rows(spec.last)
    if rows is not None:
        rows = min(rows + prompt.num_tokens - (before or prompt.num_tokens), prompt.num_tokens)
    return _Asked(number, len(spec.prompts), prompt, before, Keep(query_rows=rows))


def _prefill(task: Task, one: _Asked) -> Generator[Output, None, Prefill]:
    """The prompt's kept prefill, where there is one with all queries; otherwise one that is not kept."""
    ledger, spec, tokens = task.engine.ledger, task.lm.spec, one.prompt.num_tokens
    key = prefill_key(task.load, task.lm, one.prompt, Keep())
    nbytes = prefill_nbytes(spec, tokens, one.keep)

    def refusal(needed: int, most: int) -> DoesNotFitError:
        fits = max_tokens(spec, most, one.keep)
        return DoesNotFitError(
            f"Prompt {one.number} of {one.of} has {tokens:,} tokens, whose prefill would hold {needed:,} bytes, and "
            f"{max(most, 0):,} can be given beside the weights.",
            f"a prompt of {fits:,} tokens instead of {tokens:,}" if fits else None,
        )

    lease = yield from ledger.admit(task.load, lambda kept: 0 if kept else nbytes, refusal, key)
    task.stack.enter_context(lease)
    kept: Prefill | None = ledger.prefills.get(key)
    if kept is not None:
        return kept
    steps = prefill_in_turns(task, one.prompt, one.keep)
    try:
        while True:
            at = next(steps)
            yield one.event(f"{at['tokens_done']:,} of {tokens:,} tokens", at["tokens_done"] / tokens)
    except StopIteration as end:
        made: Prefill = end.value
        return made
    finally:
        steps.close()
