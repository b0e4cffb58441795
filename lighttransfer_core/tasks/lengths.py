"""Making an example as long as was asked, with few calls of the tokenizer.

A builder makes the example from a number of units (words, lines, documents) and a smaller number of filler after them
(words, or characters of a next word). The units are searched first, then the filler where they leave a gap.
"""

from __future__ import annotations

from collections.abc import Callable

from lighttransfer_core.errors import TaskLengthError
from lighttransfer_core.tasks.task import Count, Example

Builder = Callable[[int, int], Example]
"""The example with so many units of haystack and so much filler."""

_INTERPOLATIONS = 8
_EXACT_FROM = 1000
_MOST_FILLER = 50_000


def grow(build: Builder, num_tokens: int, count: Count, most: int = 10**9) -> Example:
    """The longest example of at most `num_tokens` tokens.

    Parameters
    ----------
    build
        Must give longer texts for more units; 0 units or 0 of filler are none.
    most
        Units that there are.

    Raises
    ------
    TaskLengthError
        The example without any haystack is longer, or the one with all units is too short.
    """
    bare = build(0, 0)
    least = count(bare.text)
    if least > num_tokens:
        raise TaskLengthError(
            f"The task {bare.task} needs at least {least:,} tokens with this tokenizer, not {num_tokens:,}: "
            "ask for a longer context."
        )
    units = largest(lambda n: count(build(n, 0).text), num_tokens, most, least)
    size = count(build(units, 0).text)
    filler = largest(lambda n: count(build(units, n).text), num_tokens, _MOST_FILLER, size, slack=num_tokens // 200)
    example = build(units, filler)
    reached = count(example.text)
    if num_tokens >= _EXACT_FROM and reached < 0.99 * num_tokens:
        raise TaskLengthError(
            f"The task {example.task} has text for {reached:,} tokens with this tokenizer, not for {num_tokens:,}: "
            "ask for a shorter context."
        )
    return example


def largest(
    size: Callable[[int], int], limit: int, most: int, size_of_none: int | None = None, slack: int | None = None
) -> int:
    """The largest number from 0 to `most` whose size is within the limit, or one that is short by the slack at most.

    `size` grows almost evenly, so the search interpolates and halves only where that does not close in. The slack is
    a thousandth of the limit if None.
    """
    slack = limit // 1000 if slack is None else slack
    low, low_size = 0, size(0) if size_of_none is None else size_of_none
    high, per_unit = most + 1, 1.0
    step = 0
    while high - low > 1 and limit - low_size > slack:
        guess = low + int((limit - low_size) / per_unit) if step < _INTERPOLATIONS else (low + high) // 2
        guess = min(max(guess, low + 1), high - 1, 16 if step == 0 else most)
        guess_size = size(guess)
        per_unit = max((guess_size - low_size) / (guess - low), 0.1)
        if guess_size <= limit:
            low, low_size = guess, guess_size
        else:
            high = guess
        step += 1
    return low
