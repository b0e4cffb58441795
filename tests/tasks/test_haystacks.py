"""Running text and what is hidden in it."""

from __future__ import annotations

import random

import pytest

from lighttransfer_core.tasks.haystacks import essays, noise, prose, scatter
from lighttransfer_core.tasks.words import ADJECTIVES, FILLER, MOST_NAMES, NOUNS, filler_words, letters, names, numbers

TEXT = "One two. Three four five. Six."


def test_words_are_taken_round_and_round() -> None:
    text = prose(TEXT, " ")
    assert text.take(0, 0) == ""
    assert text.take(2, 3) == "Three four five."
    assert text.take(4, 3) == "five. Six. One"
    assert text.take(5, 14) == f"Six. {TEXT} {TEXT} One"
    assert text.take(0, 2, 3) == "One two. Thr"
    assert text.take(0, 0, 3) == "One"


def test_a_start_begins_a_sentence() -> None:
    text = prose(TEXT, " ")
    assert {text.any_start(random.Random(seed)) for seed in range(30)} == {0, 2, 5}
    assert all(essays().take(essays().any_start(random.Random(seed)) - 1, 1)[-1] in ".!?" for seed in range(30))


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ([0.0], "<0> One two. Three four five. Six."),
        ([0.5], "One two. <0> Three four five. Six."),
        ([0.99], "One two. Three four five. <0> Six."),
        ([1.0], "One two. Three four five. Six. <0>"),
        ([1.0, 0.0, 1.0, 0.0], "<1> <3> One two. Three four five. Six. <0> <2>"),
    ],
)
def test_facts_go_between_sentences(depths: list[float], expected: str) -> None:
    text, places = scatter(TEXT, " ", [(depth, f"<{i}>") for i, depth in enumerate(depths)])
    assert text == expected
    assert [text[place : place + 3] for place in places] == [f"<{i}>" for i in range(len(depths))]


def test_filler_has_five_sentences_without_facts() -> None:
    assert FILLER.count(".") == 5
    assert not any(character.isdigit() for character in FILLER)
    assert noise().take(0, 2 * len(FILLER.split())) == f"{FILLER}\n{FILLER}"
    assert filler_words(0) == ""
    assert filler_words(3) == " The river runs"


def test_no_name_is_a_part_of_another() -> None:
    assert len(set(ADJECTIVES)) * len(set(NOUNS)) == MOST_NAMES > 20_000
    assert not [(a, b) for a in ADJECTIVES for b in ADJECTIVES if a != b and b.endswith(a)]
    assert not [(a, b) for a in NOUNS for b in NOUNS if a != b and b.startswith(a)]
    drawn = list(names(random.Random(0)))
    assert len(drawn) == len(set(drawn)) == MOST_NAMES


def test_numbers_and_letters_do_not_repeat() -> None:
    stream = numbers(random.Random(0), 2)
    assert len({next(stream) for _ in range(90)}) == 90
    words = letters(random.Random(0), 1)
    assert {next(words) for _ in range(25)} == set("BCDEFGHIJKLMNOPQRSTUVWXYZ")
