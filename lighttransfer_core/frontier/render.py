"""An example of a task as the model reads it: token ids up to the end of the context, and those of the question."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.models.prompts import render_prompt
from lighttransfer_core.tasks import Example, Task
from lighttransfer_core.types import Rendering


@dataclass(frozen=True)
class RenderedExample:
    """`context` and `question` are token ids. Both parts are always tokenised apart, so that a question that is in the
    prompt and one that is asked afterwards are the same tokens."""

    example: Example
    context: list[int]
    question: list[int]

    @property
    def num_tokens(self) -> int:
        return len(self.context) + len(self.question)


def render_example(
    tokenizer: PreTrainedTokenizerBase | None, task: Task, seed: int, num_tokens: int, rendering: Rendering
) -> RenderedExample:
    """The example of a seed, with `num_tokens` tokens in all, or up to 1% less.

    Raises
    ------
    TaskLengthError, TaskDataError
    InvalidPromptError
        The model has no tokenizer, or its template does not hold the text as it is.
    """
    if tokenizer is None:
        raise InvalidPromptError("This model has no tokenizer, so tasks cannot be asked.")
    known = tokenizer

    def count(text: str) -> int:
        return len(known(text, add_special_tokens=False).input_ids)

    added = render_prompt(known, "x", rendering).num_tokens - count("x")
    example = task.example(seed, num_tokens - added, count)
    rendered = render_prompt(known, example.context + example.question, rendering).text
    place = rendered.find(example.context)
    if place < 0:
        raise InvalidPromptError("The model's chat template changes the text, so the question cannot be told apart.")
    end = place + len(example.context)
    context, question = rendered[:end], rendered[end:] + example.answer_prefix
    parts = [known(text, add_special_tokens=False).input_ids for text in (context, question)]
    return RenderedExample(example, *parts)
