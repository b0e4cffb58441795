"""Running text to hide facts in: essays or repeated filler, cut after any word, with facts between the sentences."""

from __future__ import annotations

import json
import random
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lighttransfer_core.tasks.sources import LONG_CONTEXT, fetch
from lighttransfer_core.tasks.words import FILLER


@dataclass(frozen=True)
class Prose:
    """A text that begins again where it ends.

    Attributes
    ----------
    separator
        What stands between two of its sentences, and on both sides of a fact put there.
    starts, ends
        Where each word begins and ends in the text.
    """

    text: str
    separator: str
    starts: array[int]
    ends: array[int]

    def take(self, start: int, number: int, characters: int = 0) -> str:
        """So many words from the given one on, and so many characters of the next ones."""
        if characters:
            before = len(self.take(start, number)) + (1 if number else 0)
            return self.take(start, number + characters)[: before + characters]
        available = len(self.ends) - start
        if number <= 0:
            return ""
        if number <= available:
            return self.text[self.starts[start] : self.ends[start + number - 1]]
        more, rest = divmod(number - available, len(self.ends))
        parts = [self.text[self.starts[start] :], *[self.text] * more]
        if rest:
            parts.append(self.text[: self.ends[rest - 1]])
        return self.separator.join(parts)

    def any_start(self, rng: random.Random) -> int:
        """A word that begins a sentence."""
        start = rng.randrange(len(self.ends))
        while start and self.text[self.ends[start - 1] - 1] not in ".!?":
            start -= 1
        return start


def prose(text: str, separator: str) -> Prose:
    starts, ends = array("q"), array("q")
    for word in re.finditer(r"\S+", text):
        starts.append(word.start())
        ends.append(word.end())
    return Prose(text, separator, starts, ends)


@cache
def noise() -> Prose:
    """Five filler sentences over and over, a line each time."""
    return prose(FILLER, "\n")


@cache
def essays() -> Prose:
    """About 540,000 words of essays, those that RULER hides its needles in.

    Raises
    ------
    TaskDataError
        They are not in the cache and cannot be fetched.
    """
    text = json.loads((fetch(LONG_CONTEXT) / "essays.json").read_text(encoding="utf-8"))["text"]
    return prose(" ".join(text.split()), " ")


def scatter(body: str, separator: str, facts: Sequence[tuple[float, str]]) -> tuple[str, list[int]]:
    """The text with each fact put between two sentences, and where each then begins.

    A fact goes to the last place between sentences that is not past its depth, a share of the text's characters; a
    depth of 1 is the very end. Facts for one place stand in the order given.
    """
    cuts = [_cut(body, separator, depth) for depth, _ in facts]
    pieces: list[str] = []
    places = [0] * len(facts)
    written = done = 0
    for index in sorted(range(len(facts)), key=lambda i: (cuts[i], i)):
        before = body[done : cuts[index]]
        if cuts[index] == len(body) and done < len(body):
            before += separator
        places[index] = written + len(before)
        piece = f"{before}{facts[index][1]}{separator}"
        pieces.append(piece)
        written += len(piece)
        done = cuts[index]
    return f"{''.join(pieces)}{body[done:]}".rstrip(), places


def _cut(body: str, separator: str, depth: float) -> int:
    if depth >= 1:
        return len(body)
    end = f".{separator}"
    found = body.rfind(end, 0, int(depth * len(body)) + 1)
    return 0 if found < 0 else found + len(end)
