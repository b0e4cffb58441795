from __future__ import annotations

import re

import pytest

from lighttransfer_core.errors import InvalidPlanError
from lighttransfer_core.layer_sets import format_layers, parse_layers
from pages.parts.address import Kept, complaints, format_keep, parse_keep

CONVERTIBLE = (0, 1, 3, 4, 5, 9)


@pytest.mark.parametrize(
    ("layers", "text"),
    [((), "none"), ((3,), "3"), ((5, 3, 4), "3-5"), ((0, 1, 3, 9), "0-1,3,9"), ((4, 4, 4), "4")],
)
def test_layers_read_back_as_they_were_written(layers: tuple[int, ...], text: str) -> None:
    assert format_layers(layers) == text
    assert parse_layers(text, CONVERTIBLE) == tuple(sorted(set(layers)))


def test_words_name_none_and_all() -> None:
    assert parse_layers(" None ", CONVERTIBLE) == ()
    assert parse_layers("", CONVERTIBLE) == ()
    assert parse_layers("ALL", CONVERTIBLE) == CONVERTIBLE
    assert parse_layers(" 3 , 4-5 ", CONVERTIBLE) == (3, 4, 5)


@pytest.mark.parametrize(
    "text", ["x", "3-", "-3", "5-3", "10", "0-9999999999", "1;2", "²", "1.5", "3,,4", "half,3", "9" * 50]
)
def test_what_is_no_list_of_layers_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidPlanError):
        parse_layers(text, CONVERTIBLE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5-3", "“5-3” runs backwards. Write 3-5."),
        ("11", "Layer 11 does not exist"),
        ("8-10", "Layer 10 does not exist"),
        ("4-12", "Layers 10 to 12 do not exist"),
        ("3,", "A comma has no layer beside it"),
        ("0-10,abc", "Layer 10 does not exist here. The last layer that can be converted is 9. “abc” is not a layer"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidPlanError, match=re.escape(said)):
        parse_layers(text, CONVERTIBLE)


def test_typographic_dashes_and_blanks_are_read() -> None:
    assert parse_layers("3 – 5, 9", CONVERTIBLE) == (3, 4, 5, 9)


def test_layers_that_cannot_be_converted_are_named() -> None:
    with pytest.raises(InvalidPlanError, match="Layers 2,6-8 cannot be converted"):
        parse_layers("0-9", CONVERTIBLE)


def test_a_list_of_mistakes_stays_readable() -> None:
    with pytest.raises(InvalidPlanError) as error:
        parse_layers(",".join(f"x{number}" for number in range(300)), CONVERTIBLE)
    assert len(str(error.value)) < 500


def test_a_very_long_text_is_not_read_to_its_end() -> None:
    with pytest.raises(InvalidPlanError):
        parse_layers("3," * 100_000 + "banana", CONVERTIBLE)


def test_complaints_name_what_was_asked_and_what_is_allowed() -> None:
    asked = {"model": "gpt-9", "sink": "1.5", "recent": "0", "last": "32", "unknown": "x"}
    found = complaints(asked, {"model": ["smollm2"]})
    assert len(found) == 3
    assert "gpt-9" in found[0]
    assert "0 to 1,024" in found[1]


def test_a_complaint_names_the_place_where_that_is_chosen() -> None:
    found = complaints({"model": "gpt-9", "ask": "gemma"}, {"model": ["smollm2"], "ask": ["smollm2"]})
    assert found[0].endswith("Choose one in the sidebar.")
    assert found[1].endswith("Choose one on the page Scale.")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"keep": "last"}, "last 2048"),
        ({"keep": "all in int3"}, "all in bfloat16"),
        ({"questions": "banana"}, "left out"),
        ({"questions": f"{'a' * 64},b"}, "left out"),
    ],
)
def test_what_is_left_out_of_an_address_is_told(asked: dict[str, str], said: str) -> None:
    (found,) = complaints(asked, {})
    assert said in found


@pytest.mark.parametrize(
    "asked", [{"keep": "all"}, {"keep": "layers 0-9"}, {"keep": "all on the host"}, {"questions": f"{'a' * 64}"}]
)
def test_what_is_taken_from_an_address_is_not_complained_about(asked: dict[str, str]) -> None:
    assert complaints(asked, {}) == []


def test_a_sound_address_is_not_complained_about() -> None:
    assert complaints({"model": "smollm2", "sink": "4", "recent": "1020", "tokens": "64"}, {"model": ["smollm2"]}) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("all", Kept()),
        ("last 2048", Kept(2048)),
        ("last 5", Kept(512)),
        ("layers 0-3", Kept(512, (0, 1, 2, 3))),
        ("Layers 7", Kept(512, (7,))),
        ("all on the host", Kept(host=True)),
        ("all in bfloat16", Kept(dtype="bfloat16")),
        ("all in int3", Kept()),
        ("", Kept()),
        ("last -3", Kept()),
        ("layers a-b", Kept()),
    ],
)
def test_the_queries_to_keep(text: str, kept: Kept) -> None:
    assert parse_keep(text, 512) == kept


def test_an_offer_is_written_as_it_is_read() -> None:
    assert parse_keep(format_keep(512, 10, False, None), 512) == Kept(512, tuple(range(10)))
    assert parse_keep(format_keep(4096, 0, False, None), 512) == Kept(4096)
    assert parse_keep(format_keep(None, 0, True, None), 512) == Kept(host=True)
    assert parse_keep(format_keep(None, 0, False, "bfloat16"), 512) == Kept(dtype="bfloat16")
