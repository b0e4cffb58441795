"""How an answer is held against its references: every scorer is a function of text, 0 to 1.

RULER's rule is containment without regard to case. Plain containment takes 12345678 for an answer that has 1234567
in it; so a reference that begins or ends with a digit must not touch a further digit, and where the references are
names or codes, they must stand as whole words.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

Scorer = Callable[[str, Sequence[str]], float]
"""From an answer and its references to a score of 0 to 1."""

WORDS_ALL = "Share of the references that the answer contains as whole words, without regard to case (RULER)."
CONTAINS_ANY = "1 if the answer contains any of the references, without regard to case (RULER's rule for questions)."


def contains(answer: str, reference: str) -> bool:
    """Whether the answer contains the reference, without regard to case, and without digits that run on."""
    return _found(answer, reference, r"\d")


def contains_word(answer: str, reference: str) -> bool:
    """Whether the answer contains the reference as a whole word: no letter or digit touches it."""
    return _found(answer, reference, r"[^\W_]")


def _found(answer: str, reference: str, running_on: str) -> bool:
    text, wanted = answer.lower(), reference.strip().lower()
    if not wanted:
        return False
    before = rf"(?<!{running_on})" if re.match(running_on, wanted[0]) else ""
    after = rf"(?!{running_on})" if re.match(running_on, wanted[-1]) else ""
    return re.search(f"{before}{re.escape(wanted)}{after}", text) is not None


def contains_all(answer: str, references: Sequence[str]) -> float:
    """The share of references that the answer contains."""
    return _mean([contains(answer, reference) for reference in references])


def contains_any(answer: str, references: Sequence[str]) -> float:
    """1 if the answer contains any reference."""
    return float(any(contains(answer, reference) for reference in references))


def words_all(answer: str, references: Sequence[str]) -> float:
    """The share of references that stand in the answer as whole words."""
    return _mean([contains_word(answer, reference) for reference in references])


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that both have in order, with gaps."""
    row = [0] * (len(second) + 1)
    for left in first:
        diagonal = 0
        for column, right in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if left == right else max(above, row[column - 1])
            diagonal = above
    return row[-1]


_NUMBER = re.compile(r"(?:(?<!\d)-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def last_number(answer: str, references: Sequence[str]) -> float:
    """1 if the last number of the answer equals any reference."""
    found = _NUMBER.findall(answer)
    # A model that loops may write more digits than Python turns into an integer.
    said = Decimal(found[-1].replace(",", "")) if found else None
    return float(any(said == Decimal(reference.replace(",", "")) for reference in references))


def exact(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, blanks around it and case aside."""
    said = answer.strip().lower()
    return float(any(said == reference.strip().lower() for reference in references))


def normalised_words(text: str) -> list[str]:
    """The words as SQuAD's metric compares them: lower case, without punctuation and articles."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def f1(answer: str, references: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of a reference (SQuAD)."""
    return max((_f1(normalised_words(answer), normalised_words(reference)) for reference in references), default=0.0)


def _f1(said: list[str], wanted: list[str]) -> float:
    return _harmonic((Counter(said) & Counter(wanted)).total(), len(said), len(wanted))


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The best ROUGE-L F1 of the answer with a reference: the longest common subsequence of their words."""
    said = _rouge_words(answer)
    return max((_rouge_l(said, _rouge_words(reference)) for reference in references), default=0.0)


def _rouge_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _rouge_l(said: list[str], wanted: list[str]) -> float:
    return _harmonic(common_subsequence(said, wanted), len(said), len(wanted))


def _harmonic(common: int, said: int, wanted: int) -> float:
    return 2 * common / (said + wanted) if common else 0.0


def edit_similarity(answer: str, references: Sequence[str]) -> float:
    """For code: how alike the answer's first line of code and a reference are, by insertions and deletions.

    2 M / (m + n) for lines of m and n characters of which M can be kept in order (LongBench's `fuzz.ratio`).
    """
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    kept = [(common_subsequence(line, reference), len(reference)) for reference in references]
    return max((_harmonic(common, len(line), length) for common, length in kept), default=0.0)


def share_of_numbers(answer: str, references: Sequence[str]) -> float:
    """The share of the answer's numbers that are the reference (LongBench's counting and retrieval)."""
    said = re.findall(r"\d+", answer)
    wanted = [re.findall(r"\d+", reference) for reference in references]
    return max((said.count(found[0]) / len(said) for found in wanted if found and said), default=0.0)


def classification(answer: str, references: Sequence[str], classes: Sequence[str]) -> float:
    """One over the number of classes that the answer names, if the reference is among them (LongBench)."""
    named = [name for name in classes if name in answer]
    best = 0.0
    for reference in references:
        # A class named only as a part of the reference is not another class named.
        left = [name for name in named if name == reference or name not in reference]
        best = max(best, 1 / len(left) if reference in left else 0.0)
    return best


SCORERS: dict[str, Scorer] = {
    "contains_all": contains_all,
    "contains_any": contains_any,
    "words_all": words_all,
    "exact": exact,
    "last_number": last_number,
    "f1": f1,
    "rouge_l": rouge_l,
    "edit_similarity": edit_similarity,
    "share_of_numbers": share_of_numbers,
}
"""The scorers that a task file may name."""
