"""Several pass keys of many words each in filler, one of them asked for: retrieval of a long string."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from lighttransfer_core.tasks.haystacks import noise, scatter
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import common_subsequence
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register

_WORDS = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu"
)
NATO = tuple(_WORDS.split())
_INTRO = (
    "Several pass keys are hidden in the text below. Each is a sequence of words and has a number. Remember them all, "
    "word by word.\n\n"
)
_SCORER = (
    "Share of the pass key's words that the answer has in the right order, counted over as many words as the pass key "
    "has, from the answer's first such word on."
)
_SOURCE = "DuoAttention (arXiv 2410.10819); our wording"


@dataclass(frozen=True, kw_only=True)
class MultiPassKey(Task):
    """Gives one of several pass keys, each a sequence of words of the NATO alphabet.

    Parameters
    ----------
    keys
        Pass keys in the text.
    words
        Words of each.
    """

    keys: int = 10
    words: int = 32

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        keys = [" ".join(rng.choices(NATO, k=self.words)) for _ in range(self.keys)]
        depths = [rng.random() for _ in keys]
        asked = rng.randrange(self.keys)

        def build(words: int, filler: int) -> Example:
            facts = [(depths[i], f"Pass key number {i + 1} is: {key}.") for i, key in enumerate(keys)]
            text, places = scatter(noise().take(0, words, filler), noise().separator, facts)
            context = f"{_INTRO}{text}"
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question=f"\n\nWhat is pass key number {asked + 1}? Give its {self.words} words.\n",
                answer_prefix=f"Pass key number {asked + 1} is:",
                answers=(keys[asked],),
                depths=((len(_INTRO) + places[asked]) / len(context),),
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        reference = example.answers[0].split()
        said = re.findall(r"\w+", answer.lower())
        begin = next((i for i, word in enumerate(said) if word in NATO), len(said))
        return common_subsequence(said[begin : begin + len(reference)], reference) / len(reference)


register(
    MultiPassKey(
        info=TaskInfo(
            "multi_passkey",
            "Ten long pass keys",
            "Ten pass keys of 32 words each in filler, one of them asked for.",
            _SOURCE,
            _SCORER,
        ),
        max_new_tokens=128,
    )
)
register(
    MultiPassKey(
        info=TaskInfo(
            "multi_passkey_short",
            "Four pass keys",
            "Four pass keys of 8 words each in filler, one of them asked for.",
            _SOURCE,
            _SCORER,
        ),
        max_new_tokens=48,
        keys=4,
        words=8,
    )
)
