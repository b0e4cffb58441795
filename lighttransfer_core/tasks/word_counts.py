"""Word extraction: which words are the most frequent in a long list of them.

`cwe` lists ten common words among rarer ones, `fwe` draws coded words with the frequencies of Zipf's law. Parameters
of RULER's recipe, our own wording.
"""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass
from functools import cache

from lighttransfer_core.tasks.lengths import grow
from lighttransfer_core.tasks.scorers import WORDS_ALL, words_all
from lighttransfer_core.tasks.sources import WORD_LISTS, Wheel, fetch
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register
from lighttransfer_core.tasks.words import letters

COMMON_WORDS = TaskInfo(
    "cwe",
    "Common words",
    "A numbered list of words in which ten stand more often than all others; the ten are asked for. A small example "
    "stands in front.",
    "RULER (arXiv 2404.06654), appendix B; our wording",
    WORDS_ALL,
)
FREQUENT_WORDS = TaskInfo(
    "fwe",
    "Frequent words",
    "Random strings with the frequencies of Zipf's law, the most frequent one printed as dots; the next three are "
    "asked for.",
    "RULER (arXiv 2404.06654), appendix B; our wording",
    WORDS_ALL,
)
_SHORT = 4096
_COMMON = 10
_ZETA_OF_2 = math.pi**2 / 6


@cache
def vocabulary() -> tuple[str, ...]:
    """The English words of 3 to 10 letters in RULER's lists, several thousand.

    Raises
    ------
    TaskDataError
        The lists are not in the cache and cannot be fetched.
    """
    folder = fetch(WORD_LISTS)
    lists = [(folder / name).read_text(encoding="utf-8") for name in WORD_LISTS.members.values()]
    words = {word.strip().lower() for text in lists for word in text.splitlines()}
    return tuple(sorted(word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 10))


@dataclass(frozen=True, kw_only=True)
class CommonWords(Task):
    """Names the ten words that a numbered list has 30 times, where it has the others 3 times.

    Below 4,096 tokens it has them 6 times and once. The example in front has 40 words, 20 below, of the same kind.
    """

    info: TaskInfo = COMMON_WORDS
    max_new_tokens: int = 120

    @property
    def wheel(self) -> Wheel:
        return WORD_LISTS

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        words = rng.sample(vocabulary(), len(vocabulary()))
        often, seldom, shown_words, shown_often, shown_seldom = (
            (6, 1, 20, 3, 1) if num_tokens < _SHORT else (30, 3, 40, 10, 3)
        )
        shown, words = words[:shown_words], words[shown_words:]
        first = _list(rng, shown[:_COMMON] * shown_often + shown[_COMMON:] * shown_seldom)
        intro = (
            "Each of the numbered lists below has ten words more often than all others. Remember those ten.\n\n"
            f"Example\n{first}\n{_QUESTION}\n{_PREFIX} {', '.join(shown[:_COMMON])}\n\nThe list that counts\n"
        )
        common, others = words[:_COMMON], words[_COMMON:]
        shuffle = rng.random()

        def build(number: int, singles: int) -> Example:
            # Words that stand once bring the list to its length where the others stand three times.
            listed = common * often + others[:number] * seldom + others[number : number + singles]
            context = f"{intro}{_list(random.Random(shuffle), listed)}"
            return Example(self.info.name, seed, context, f"\n\n{_QUESTION}\n", _PREFIX, tuple(common))

        return grow(build, num_tokens, count, len(others))

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)


_QUESTION = "Which ten words does the list have most often?"
_PREFIX = "The ten words are"


def _list(rng: random.Random, words: list[str]) -> str:
    shuffled = rng.sample(words, len(words))
    return " ".join(f"{number}. {word}" for number, word in enumerate(shuffled, start=1))


@dataclass(frozen=True, kw_only=True)
class FrequentWords(Task):
    """Names the second to fourth most frequent of coded words; the most frequent is printed as dots and does not count.

    Of n words, the one of rank k stands n / (zeta(alpha) k^alpha) times, for alpha = 2.
    """

    info: TaskInfo = FREQUENT_WORDS
    max_new_tokens: int = 50

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        rng = random.Random(f"{self.info.name} {seed}")
        stream = letters(rng, 6, string.ascii_lowercase)
        words = ["...", *(next(stream) for _ in range(max(num_tokens // 50, 8) - 1))]
        singles = [next(stream) for _ in range(_MOST_SINGLES)]
        shuffle = rng.random()
        intro = (
            "The text below is made of coded words; dots stand for a word that does not count. Keep track of how "
            "often each coded word appears.\n\n"
        )

        def build(number: int, filler: int) -> Example:
            # Even the shortest text ranks the words asked for strictly.
            total = _FEWEST + number
            listed = [word for rank, word in enumerate(words, start=1) for _ in range(_zipf(total, rank))]
            # One more word can make several counts jump; words that stand once close the gap that this leaves.
            listed += singles[:filler]
            context = intro + " ".join(random.Random(shuffle).sample(listed, len(listed)))
            question = "\n\nWhich three coded words appear most often?\n"
            return Example(
                self.info.name, seed, context, question, "The three words that appear most often are", tuple(words[1:4])
            )

        return grow(build, num_tokens, count)

    def score(self, answer: str, example: Example) -> float:
        return words_all(answer, example.answers)


_MOST_SINGLES = 200
_FEWEST = 100
"""Of so many words the ranks 2 to 5 stand 15, 6, 3 and 2 times."""


def _zipf(total: int, rank: int) -> int:
    return int(total / (_ZETA_OF_2 * rank**2))


register(CommonWords())
register(FrequentWords())
