"""A long text whose true continuation is scored by its likelihood: perplexity, or divergence from the full model."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from lighttransfer_core.errors import TaskLengthError
from lighttransfer_core.tasks.haystacks import Prose, essays, prose
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.sources import LONG_CONTEXT, Wheel
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

    @property
    def wheel(self) -> Wheel | None:
        return LONG_CONTEXT

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


@lru_cache(maxsize=2)
def _words_of(text: str) -> Prose:
    """Found once for all passages of a text, which may be long."""
    return prose(text, "")


PASSAGES = TaskInfo(
    "passages",
    "Passages of the prompt",
    "The last words of a text, and then those before them, each as it goes on after what stands before it.",
    "The text at hand",
    INFO.scorer,
)


@dataclass(frozen=True, kw_only=True)
class Passages(Continuation):
    """Of a text that is given, not registered. The seed counts passages from the end; no word is read twice.

    Parameters
    ----------
    text
        Its last `words` words are the continuation of seed 0, those before them that of seed 1, and so on.
    """

    info: TaskInfo = PASSAGES
    text: str

    @property
    def wheel(self) -> Wheel | None:
        return None

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        text = _words_of(self.text)
        stop = len(text.ends) - self.words * seed
        first = stop - self.words
        if first < 1:
            raise TaskLengthError(
                f"The text has {len(text.ends):,} words, so there is no passage {seed} of {self.words} words: ask for "
                "fewer, or give a longer text."
            )
        end = text.ends[first - 1]
        following = self.text[end : text.ends[stop - 1]]

        def build(words: int, characters: int) -> Example:
            start = text.starts[first - words] if words else end
            context = self.text[max(start - characters, 0) : end]
            return Example(self.info.name, seed, context, "", "", (following,))

        return grow(build, num_tokens, count, first)


register(Continuation())
