"""How an answer is held against its references: every scorer is a function of text, 0 to 1.

RULER's rule is containment without regard to case. Plain containment takes 12345678 for an answer that has 1234567
in it; so a reference that begins or ends with a digit must not touch a further digit, and where the references are
names or codes, they must stand as whole words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

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
    said = Fraction(found[-1].replace(",", "")) if found else None
    return float(any(said == Fraction(reference.replace(",", "")) for reference in references))
