"""Variable tracking: a chain of assignments in filler, whose variables all have the first one's value."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lighttransfer_core.tasks.haystacks import noise, scatter
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import WORDS_ALL, words_all
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register
from lighttransfer_core.tasks.words import FILLER, letters, numbers

INFO = TaskInfo(
    "vt",
    "Variable tracking",
    "A number is assigned to a variable and handed on four times, in order, at random places in filler; all five "
    "variables are asked for. A small example stands in front.",
    "RULER (arXiv 2404.06654), appendix B; our wording",
    WORDS_ALL,
)
_INTRO = (
    "Some lines of a text set a variable, either to a number or to the value of another variable. Follow them to find "
    "every variable that has a certain value.\n\n"
)


@dataclass(frozen=True, kw_only=True)
class VariableTracking(Task):
    """Names all variables of a chain.

    Parameters
    ----------
    hops
        Times that the value is handed on; there is one variable more.
    """

    info: TaskInfo = INFO
    max_new_tokens: int = 48
    hops: int = 4

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        values = numbers(rng, 5)
        shown = _small_example(rng, next(values), self.hops + 1)
        value, chain = next(values), _names(rng, 5, self.hops + 1)
        depths = sorted(rng.random() for _ in chain)
        intro = f"{_INTRO}Example\n\n{shown}\n\nNow the text that counts\n\n"

        def build(words: int, filler: int) -> Example:
            lines = list(zip(depths, _assignments(chain, value), strict=True))
            text, places = scatter(noise().take(0, words, filler), noise().separator, lines)
            context = f"{intro}{text}"
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question=f"\n\n{_question(value, len(chain))}\n",
                answer_prefix=_answer_prefix(value),
                answers=tuple(chain),
                depths=tuple((len(intro) + place) / len(context) for place in places),
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)


def _small_example(rng: random.Random, value: str, size: int) -> str:
    chain = _names(rng, 3, size)
    depths = sorted(rng.random() for _ in chain)
    text, _ = scatter(FILLER, " ", list(zip(depths, [f"{a}." for a in _assignments(chain, value)], strict=True)))
    return f"{text}\n{_question(value, size)}\n{_answer_prefix(value)} {', '.join(chain)}"


def _names(rng: random.Random, length: int, size: int) -> list[str]:
    stream = letters(rng, length)
    return [next(stream) for _ in range(size)]


def _assignments(chain: list[str], value: str) -> list[str]:
    return [f"VAR {name} = {source}" for name, source in zip(chain, [value, *chain[:-1]], strict=True)]


def _question(value: str, size: int) -> str:
    return f"Which {size} variables have the value {value}?"


def _answer_prefix(value: str) -> str:
    return f"The variables with the value {value} are:"


register(VariableTracking())
