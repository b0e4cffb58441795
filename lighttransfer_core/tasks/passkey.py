"""The pass key: one number of five digits in filler, the smallest of all retrieval tasks."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lighttransfer_core.tasks.haystacks import noise, scatter
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import WORDS_ALL, words_all
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register
from lighttransfer_core.tasks.words import numbers

INFO = TaskInfo(
    "passkey",
    "Pass key",
    "One number of five digits in five filler sentences over and over.",
    "Landmark Attention (arXiv 2305.16300); our wording",
    WORDS_ALL,
)
_INTRO = "A pass key is hidden in the text below, which says nothing else. Find it and remember it.\n\n"


@dataclass(frozen=True, kw_only=True)
class PassKey(Task):
    """Gives the pass key back.

    Parameters
    ----------
    depth
        Where the pass key stands, 0 to 1; None: anywhere.
    """

    info: TaskInfo = INFO
    max_new_tokens: int = 24
    depth: float | None = None

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        key, depth = next(numbers(rng, 5)), rng.random()

        def build(words: int, filler: int) -> Example:
            fact = (depth if self.depth is None else self.depth, f"The pass key is {key}. Remember it.")
            text, places = scatter(noise().take(0, words, filler), noise().separator, [fact])
            context = f"{_INTRO}{text}"
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question="\n\nWhat is the pass key? It is a number of five digits.\n",
                answer_prefix="The pass key is",
                answers=(key,),
                depths=((len(_INTRO) + places[0]) / len(context),),
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)


register(PassKey())
