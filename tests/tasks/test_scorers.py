"""How answers are held against references: the scores of small cases by hand."""

from __future__ import annotations

import pytest

from lighttransfer_core.tasks.final_answer import final_answer_equals, last_boxed
from lighttransfer_core.tasks.scorers import (
    classification,
    common_subsequence,
    contains_all,
    contains_any,
    edit_similarity,
    exact,
    f1,
    last_number,
    rouge_l,
    share_of_numbers,
    words_all,
)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("It is 1234567.", 1),
        ("1234567", 1),
        ("number:1234567,", 1),
        ("1234567 and 12345678", 1),
        ("12345678", 0),
        ("91234567", 0),
        ("1234568", 0),
        ("123456", 0),
        ("123 4567", 0),
        ("1,234,567", 0),
        ("", 0),
    ],
)
def test_digits_must_not_run_on(answer: str, score: float) -> None:
    assert contains_all(answer, ["1234567"]) == score
    assert contains_any(answer, ["1234567"]) == score
    assert words_all(answer, ["1234567"]) == score


def test_only_whole_words_take_letters_for_a_border() -> None:
    assert contains_all("the Normans", ["norman"]) == 1
    assert words_all("the Normans", ["norman"]) == 0
    assert words_all("the normans' NORMAN king", ["norman"]) == 1
    assert words_all("x_ABC_y", ["abc"]) == 1
    assert words_all("a1234567", ["1234567"]) == 0
    assert contains_all("a1234567b", ["1234567"]) == 1


def test_the_share_of_references_contained() -> None:
    assert contains_all("one and THREE", ["One", "two", "three", "four"]) == 0.5
    assert contains_any("one and THREE", ["two", "three"]) == 1
    assert contains_any("one", ["two", "three"]) == 0
    assert contains_all("anything", []) == 0
    assert contains_all("anything", [" "]) == 0
    assert contains_all("a.b", ["a?b"]) == contains_all("aab", ["a.b"]) == 0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Step 1: 12 + 5 = 17\nFinal value: 372", 1),
        ("372.", 1),
        ("It is 372.0, I think", 1),
        ("Final value: 3720", 0),
        ("372 or 373", 0),
        ("-372", 0),
        ("500-372", 1),
        ("1,372", 0),
        ("none", 0),
        ("9" * 6000, 0),
    ],
)
def test_the_last_number(answer: str, score: float) -> None:
    assert last_number(answer, ["372"]) == score


def test_thousands_may_be_set_apart() -> None:
    assert last_number("12,345.50", ["12345.5"]) == last_number("12345", ["12,345"]) == 1
    assert last_number("12,34", ["1234"]) == 0


def test_exact_knows_no_case_and_no_blanks_around() -> None:
    assert exact(" Paris\n", ["paris"]) == 1
    assert exact("Paris.", ["paris"]) == 0


def test_f1_as_squad_counts_it() -> None:
    assert f1("The old mill!", ["old mill"]) == 1
    assert f1("old river", ["old mill", "an older mill"]) == 0.5
    assert f1("old old", ["old"]) == pytest.approx(2 / 3)
    assert f1("", ["old"]) == f1("the", ["a"]) == 0


def test_rouge_l_counts_the_longest_common_subsequence() -> None:
    assert common_subsequence("ABCBDAB", "BDCABA") == 4
    assert common_subsequence("", "abc") == 0
    assert rouge_l("police killed the gunman", ["police kill the gunman"]) == 0.75
    assert rouge_l("the gunman kill police", ["police kill the gunman"]) == 0.5


def test_edit_similarity_takes_the_first_line_of_code() -> None:
    assert edit_similarity("```python\n# a comment\nreturn x\nreturn y", ["return x"]) == 1
    assert edit_similarity("return z", ["return x"]) == pytest.approx(14 / 16)
    assert edit_similarity("", ["return x"]) == 0


def test_counting_and_classes_as_longbench() -> None:
    assert share_of_numbers("Paragraph 7, not 12", ["Paragraph 7"]) == 0.5
    assert share_of_numbers("Paragraph 71", ["Paragraph 7"]) == 0
    assert share_of_numbers("none", ["Paragraph 7"]) == 0
    classes = ["Number", "Other number", "Date"]
    assert classification("Other number", ["Other number"], ["number", *classes]) == 1
    assert classification("Date or Number", ["Date"], classes) == 0.5
    assert classification("Date", ["Number"], classes) == 0


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        (r"so \boxed{204}.", "204", True),
        (r"\boxed{1}, no: \boxed{ 204 }", "204", True),
        (r"\boxed{204} is it, after 17 steps", "204", True),
        (r"\boxed{2040}", "204", False),
        (r"The answer is 204.", "204", True),
        (r"The answer is 2040", "204", False),
        (r"\boxed{\dfrac34}", r"$\frac{3}{4}$", True),
        (r"\boxed{0.75}", r"\frac{3}{4}", True),
        (r"\boxed{-\frac{3}{4}}", r"-3/4", True),
        (r"\boxed{\frac{4}{3}}", r"\frac{3}{4}", False),
        (r"\boxed{x = 2\sqrt{2}}", r"2\sqrt{2}", True),
        (r"\boxed{2\sqrt2}", r"$2\sqrt{2}$", True),
        (r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"(3,\frac{\pi}{2})", True),
        (r"\boxed{10,080}", "10080", True),
        (r"\boxed{90^\circ}", "90", True),
        (r"\boxed{42\%}", "42", True),
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", True),
        (r"\boxed{}", "204", False),
        (r"\boxed{204", "204", True),
        ("pi over 2", r"\frac{\pi}{2}", False),
        ("", "204", False),
        ("I do not know", "204", False),
        (r"\boxed{1/0}", "204", False),
        ("9" * 6000, "204", False),
    ],
)
def test_the_final_answer(answer: str, reference: str, right: bool) -> None:
    assert final_answer_equals(answer, reference) is right


def test_the_last_complete_box_counts() -> None:
    assert last_boxed(r"\boxed{1} and \boxed{\frac{2}{3}} and \boxed{4") == r"\frac{2}{3}"
    assert last_boxed("none") is None
