"""A long text whose true continuation is scored by its likelihood: perplexity, or divergence from the full model."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import ClassVar, Literal

from lighttransfer_core.tasks.haystacks import essays
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register

INFO = TaskInfo(
    "text",
    "Continuation of a text",
    "Essays, and the words that follow where they are cut off. There is no question and nothing to generate.",
    "The essays of RULER (arXiv 2404.06654)",
    "Not scored as an answer: the continuation's perplexity, or its KL divergence from the full model, is the result.",
)


@dataclass(frozen=True, kw_only=True)
class Continuation(Task):
    """The reference begins exactly where the context ends, with the blank if there is one.

    Parameters
    ----------
    words
        Length of the continuation.
    """

    scored_by: ClassVar[Literal["answer", "likelihood"]] = "likelihood"
    info: TaskInfo = INFO
    words: int = 64

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        text = essays()
        start = text.any_start(random.Random(f"{self.info.name} {seed}"))

        def build(words: int, characters: int) -> Example:
            context = text.take(start, words, characters)
            more = text.take(start, words + characters + self.words)[len(context) :]
            blank = " " if more.startswith(" ") else ""
            following = blank + " ".join(more.split()[: self.words])
            return Example(self.info.name, seed, context, "", "", (following,))

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return math.nan


register(Continuation())
