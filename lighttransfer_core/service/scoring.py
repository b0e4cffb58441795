"""Scores of a prefill as they travel: of the whole prompt, and of its beginning up to the question."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from lighttransfer_core.errors import InvalidInputError, InvalidPromptError, PrefillMismatchError
from lighttransfer_core.laziness import layer_scores_steps, metric_info
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.service.answers import BeforeQuestion, LightScores, ScoreQuestion
from lighttransfer_core.steps import finished, retold
from lighttransfer_core.types import Window

NO_QUESTION = (
    "The prompt has no blank line, so no question can be told apart from its text: what follows the last blank line "
    "counts as the question."
)


def answers(
    prefill: Prefill, before: int | None, questions: Sequence[ScoreQuestion], check: Callable[[], None]
) -> list[LightScores]:
    """One answer a question; `before` is how many tokens come before the prompt's own question.

    Raises
    ------
    InvalidInputError
        A metric that tries layers out, which would take the model's turns.
    InvalidPromptError
        The prompt has no question that could be left out.
    UnknownMetricError, PrefillMismatchError
    """
    for asked in questions:
        if metric_info(asked.metric).kind == "trial":
            raise InvalidInputError(
                f"{asked.metric} tries layers out on the model, which only a run may do: start a prefill run with it."
            )
    found = []
    for asked in questions:
        check()
        tokens = None
        if asked.question == "agnostic":
            if before is None:
                raise InvalidPromptError(NO_QUESTION)
            tokens = before
        steps = layer_scores_steps(prefill, asked.window, asked.last, asked.metric, tokens)
        found.append(LightScores.of(finished(retold(steps, lambda _doing: check()))))
    return found


def before_question_steps(
    prefill: Prefill, tokens: int | None, window: Window, last: int, metric: str
) -> Generator[str, None, BeforeQuestion]:
    """The scores of a prompt up to its question, or why there are none."""
    if tokens is None:
        return BeforeQuestion(reason=NO_QUESTION)
    try:
        scores = yield from layer_scores_steps(prefill, window, last, metric, tokens)
        return BeforeQuestion(tokens, LightScores.of(scores))
    except (PrefillMismatchError, InvalidInputError) as error:
        return BeforeQuestion(tokens, reason=str(error))
