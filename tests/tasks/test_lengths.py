"""Making an example as long as was asked: the search itself, and what it does where it cannot."""

from __future__ import annotations

import pytest

from lighttransfer_core.errors import TaskLengthError
from lighttransfer_core.tasks import Example
from lighttransfer_core.tasks.lengths import grow, largest


@pytest.mark.parametrize("per_unit", [1, 3, 17])
@pytest.mark.parametrize("limit", [100, 1234, 99_999])
@pytest.mark.parametrize("most", [0, 1, 50, 10**9])
def test_the_largest_number_that_fits(per_unit: int, limit: int, most: int) -> None:
    asked: list[int] = []

    def size(n: int) -> int:
        asked.append(n)
        return 40 + n * per_unit + (n % 7 == 0) * 2

    found = largest(size, limit, most, slack=0)
    assert 0 <= found <= most
    assert size(found) <= limit
    assert found == most or size(found + 1) >= limit - 2
    assert all(n <= max(most, 0) for n in asked)
    assert len(asked) < 50


def test_a_size_that_grows_in_jumps_is_still_found() -> None:
    assert largest(lambda n: 0 if n < 5000 else 10**9, 100, 10**6) == 4999


def words(units: int, filler: int) -> Example:
    return Example("toy", 0, "a " * units + "." * filler, "?", "", ())


def test_units_leave_a_gap_that_filler_closes() -> None:
    example = grow(lambda units, filler: words(units * 300, filler), 1500, len)
    assert example.context == "a " * 600 + "." * (len(example.context) - 1200)
    assert 1492 <= len(example.text) <= 1500


def test_too_short_and_too_long_say_so() -> None:
    with pytest.raises(TaskLengthError, match="The task toy needs at least 1 tokens with this tokenizer, not 0"):
        grow(words, 0, len)
    with pytest.raises(TaskLengthError, match=r"The task toy has text for 1,201 tokens .* not for 2,000: ask for a sh"):
        grow(lambda units, _: words(units, 0), 2000, len, most=600)
