"""Needles at a stated depth, and their controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from lighttransfer_core.tasks import get_task

TASKS = ["niah_single_1", "niah_single_2", "niah_multikey_1", "niah_multikey_2", "passkey", "key_value"]


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("name", TASKS)
def test_a_fact_can_be_put_at_a_depth(name: str, depth: float) -> None:
    """Within one sentence or line, and the instruction in front."""
    task = replace(cast(Any, get_task(name)), depth=depth)
    example = task.example(4, 40_000, len)
    assert example.depths[0] == pytest.approx(depth, abs=0.03)
    place = round(example.depths[0] * len(example.context))
    assert example.answers[0] in example.context[place : place + 120]


@pytest.mark.parametrize("name", ["niah_multikey_1", "niah_multiquery", "niah_multivalue"])
def test_four_numbers_stand_in_the_text(name: str) -> None:
    example = get_task(name).example(4, 8000, len)
    assert example.context.count("The secret number of ") == 4
    assert len(example.answers) == (1 if name == "niah_multikey_1" else 4)
    assert len(set(example.depths)) == len(example.answers)
    assert example.answer_prefix.endswith(" is" if len(example.answers) == 1 else " are")


@pytest.mark.parametrize("name", ["niah_multikey_2", "niah_multikey_3"])
def test_every_line_is_a_needle_and_no_name_comes_twice(name: str) -> None:
    lines = get_task(name).example(4, 8000, len).context.partition("\n\n")[2].splitlines()[:-1]
    keys = [line.removesuffix(".").split(" is ")[0].rpartition(" of ")[2] for line in lines]
    assert len(keys) > 75
    assert len(set(keys)) == len(keys)
    assert all(line.startswith("The secret ") for line in lines)


def test_an_answer_is_the_same_at_every_length() -> None:
    """A grid of lengths asks the same thing in longer and longer texts."""
    for name in TASKS:
        assert get_task(name).example(7, 2000, len).answers == get_task(name).example(7, 9000, len).answers
