"""Needles: sentences that give a name its secret number, hidden in a haystack; one, several, or nothing but them.

Eight tasks with the parameters of RULER's and our own wording, so scores are RULER-style and not RULER's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lighttransfer_core.tasks.haystacks import Prose, essays, noise, scatter
from lighttransfer_core.tasks.lengths import Builder, grow
from lighttransfer_core.tasks.scorers import WORDS_ALL, words_all
from lighttransfer_core.tasks.sources import LONG_CONTEXT, Wheel
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register
from lighttransfer_core.tasks.words import MOST_NAMES, filler_words, names, numbers, uuids

_DEPTHS = tuple(step / 39 for step in range(40))
_SOURCE = "RULER (arXiv 2404.06654), appendix B; our wording"


@dataclass(frozen=True, kw_only=True)
class Needles(Task):
    """Gives the secret values of one or more names.

    Parameters
    ----------
    haystack
        "noise" repeats filler, "essays" is real text, "needles" is made of needles of other names.
    keys, queries
        Names in the haystack, and how many of them are asked for; "needles" has as many as its length allows.
    values
        Secrets of each name.
    key_kind, value_kind
        "word" for names such as amber-harbor, "number" for seven digits, "uuid" for random identifiers.
    depth
        Where the needle asked for stands, 0 to 1; None: at a random one of 40 depths. One query and one value only.
    """

    haystack: Literal["noise", "essays", "needles"]
    key_kind: Literal["word", "uuid"] = "word"
    value_kind: Literal["number", "uuid"] = "number"
    keys: int = 1
    values: int = 1
    queries: int = 1
    depth: float | None = None

    @property
    def wheel(self) -> Wheel | None:
        return LONG_CONTEXT if self.haystack == "essays" else None

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        if self.haystack == "needles":
            return grow(self._among_needles(seed, rng), num_tokens, count, MOST_NAMES - 1)
        return grow(self._in_prose(seed, rng, noise() if self.haystack == "noise" else essays()), num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)

    def _in_prose(self, seed: int, rng: random.Random, prose: Prose) -> Builder:
        keys = (key for key in self._names(rng) if key not in prose.text)
        secrets = (value for value in self._secrets(rng) if value not in prose.text)
        needles = [(key, value) for key in [next(keys) for _ in range(self.keys)] for value in self._values(secrets)]
        depths = self._depths(rng, len(needles))
        start = 0 if prose is noise() else prose.any_start(rng)
        asked = self.queries * self.values

        def build(words: int, filler: int) -> Example:
            body = prose.take(start, words, filler)
            facts = [(depth, self._sentence(*needle)) for depth, needle in zip(depths, needles, strict=True)]
            text, places = scatter(body, prose.separator, facts)
            return self._example(seed, text, needles[:asked], places[:asked])

        return build

    def _among_needles(self, seed: int, rng: random.Random) -> Builder:
        keys, secrets = self._names(rng), self._secrets(rng)
        needle = (next(keys), next(secrets))
        share = self._depths(rng, 1)[0]
        sentence, others = self._sentence(*needle), list[str]()

        def build(lines: int, filler: int) -> Example:
            while len(others) < lines:
                others.append(self._sentence(next(keys), next(secrets)))
            before = others[: round(share * lines)]
            place = sum(len(line) + 1 for line in before)
            text = "\n".join([*before, sentence, *others[len(before) : lines]])
            # A last line of plain words, shorter than a needle, brings the text to its length.
            text += f"\n{filler_words(filler).strip()}" if filler else ""
            return self._example(seed, text, [needle], [place])

        return build

    def _example(self, seed: int, text: str, asked: list[tuple[str, str]], places: list[int]) -> Example:
        several = "s" if len(asked) > 1 else ""
        subject = f"secret {self._noun}{several} of {_listed(list(dict.fromkeys(key for key, _ in asked)))}"
        verb = "are" if several else "is"
        intro = (
            f"Somewhere in the text below stands the secret {self._noun} of a name, or of several names. Keep them in "
            "mind: you will be asked for them at the end.\n\n"
        )
        context = f"{intro}{text}"
        return Example(
            task=self.info.name,
            seed=seed,
            context=context,
            question=f"\n\nWhat {verb} the {subject}, as the text has it?\n",
            answer_prefix=f"The {subject} {verb}",
            answers=tuple(value for _, value in asked),
            depths=tuple((len(intro) + place) / len(context) for place in places),
        )

    @property
    def _noun(self) -> str:
        return "number" if self.value_kind == "number" else "code"

    def _sentence(self, key: str, value: str) -> str:
        return f"The secret {self._noun} of {key} is {value}."

    def _depths(self, rng: random.Random, facts: int) -> list[float]:
        if self.depth is not None:
            return [self.depth, *rng.sample(_DEPTHS, facts - 1)]
        return rng.sample(_DEPTHS, facts)

    def _names(self, rng: random.Random) -> Iterator[str]:
        own = random.Random(rng.random())
        return names(own) if self.key_kind == "word" else uuids(own)

    def _secrets(self, rng: random.Random) -> Iterator[str]:
        own = random.Random(rng.random())
        return numbers(own, 7) if self.value_kind == "number" else uuids(own)

    def _values(self, secrets: Iterator[str]) -> list[str]:
        return [next(secrets) for _ in range(self.values)]


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _info(name: str, title: str, description: str) -> TaskInfo:
    return TaskInfo(name, title, description, _SOURCE, WORDS_ALL)


register(
    Needles(
        info=_info("niah_single_1", "Needle in filler", "One number in five filler sentences over and over."),
        haystack="noise",
    )
)
register(Needles(info=_info("niah_single_2", "Needle in essays", "One number in a text of essays."), haystack="essays"))
register(
    Needles(
        info=_info("niah_single_3", "Long needle in essays", "One random identifier in a text of essays."),
        haystack="essays",
        value_kind="uuid",
    )
)
register(
    Needles(
        info=_info("niah_multikey_1", "One of four needles", "Four names with a number each, one of them asked for."),
        haystack="essays",
        keys=4,
    )
)
register(
    Needles(
        info=_info("niah_multikey_2", "Needle among needles", "Every line is a name with its number."),
        haystack="needles",
    )
)
register(
    Needles(
        info=_info(
            "niah_multikey_3", "Identifier among identifiers", "Every line is an identifier with its identifier."
        ),
        haystack="needles",
        key_kind="uuid",
        value_kind="uuid",
    )
)
register(
    Needles(
        info=_info("niah_multivalue", "Four values of one name", "One name has four numbers, all asked for."),
        haystack="essays",
        values=4,
    )
)
register(
    Needles(
        info=_info("niah_multiquery", "Four names at once", "Four names with a number each, all asked for."),
        haystack="essays",
        keys=4,
        queries=4,
    )
)
