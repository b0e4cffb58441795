"""A chain of small sums hidden in filler: the answer is long, so that decoding goes on past a window."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lighttransfer_core.tasks.haystacks import noise, scatter
from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import last_number
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register

_SOURCE = "Our own"
_SCORER = "1 if the last number of the answer is the final value, 0 if not."
_LARGEST = 999
_INTRO = (
    "The text below hides numbered steps of a sum, in order, among sentences that do not matter. The value begins with "
    "the number at the start and changes with each step.\n\n"
)


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task):
    """Carries out a chain of steps, one line each, and gives the final value.

    Parameters
    ----------
    steps
        Additions and subtractions of numbers below 100; every value lies between 1 and 999.
    """

    steps: int

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        lines, value = _chain(rng, self.steps)
        depths = sorted(rng.random() for _ in lines)

        def build(words: int, filler: int) -> Example:
            facts = list(zip(depths, lines, strict=True))
            text, places = scatter(noise().take(0, words, filler), noise().separator, facts)
            context = f"{_INTRO}{text}"
            return Example(
                task=self.info.name,
                seed=seed,
                context=context,
                question=(
                    f"\n\nCarry out all {self.steps} steps in order, one line for each, written like "
                    "'Step 1: 12 + 5 = 17'. End with a line 'Final value: ' and the number.\n"
                ),
                answer_prefix="",
                answers=(str(value),),
                depths=tuple((len(_INTRO) + place) / len(context) for place in places),
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return last_number(answer, example.answers)


def _chain(rng: random.Random, steps: int) -> tuple[list[str], int]:
    value = rng.randrange(100, 500)
    lines = [f"Start with {value}."]
    for step in range(1, steps + 1):
        change = rng.randrange(2, 100)
        adds = value <= change or (value + change <= _LARGEST and rng.random() < 0.5)
        value += change if adds else -change
        lines.append(f"Step {step}: {'add' if adds else 'subtract'} {change}.")
    return lines, value


register(
    Arithmetic(
        info=TaskInfo(
            "arithmetic",
            "Chain of 64 sums",
            "64 additions and subtractions in filler, to be carried out line by line: about a thousand tokens.",
            _SOURCE,
            _SCORER,
        ),
        max_new_tokens=1536,
        steps=64,
    )
)
register(
    Arithmetic(
        info=TaskInfo(
            "arithmetic_short",
            "Chain of 12 sums",
            "Twelve additions and subtractions in filler, to be carried out line by line.",
            _SOURCE,
            _SCORER,
        ),
        max_new_tokens=320,
        steps=12,
    )
)
