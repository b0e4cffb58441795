"""Long pass keys: how the share of right words is counted."""

from __future__ import annotations

import pytest

from lighttransfer_core.tasks import Example, get_task
from lighttransfer_core.tasks.multi_passkey import MultiPassKey

REFERENCE = "alpha bravo charlie delta"


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("The pass key is Alpha, Bravo, Charlie, Delta.", 1),
        ("alpha bravo charlie delta and so on", 1),
        ("alpha charlie delta", 0.75),
        ("alpha brovo charlie delta", 0.75),
        ("bravo charlie delta echo", 0.75),
        ("delta charlie bravo alpha", 0.25),
        ("echo foxtrot golf hotel alpha bravo charlie delta", 0),
        ("alphabravocharliedelta", 0),
        ("", 0),
    ],
)
def test_words_count_in_their_order(answer: str, score: float) -> None:
    example = Example("multi_passkey", 0, "", "", "", (REFERENCE,))
    assert get_task("multi_passkey").score(answer, example) == score


@pytest.mark.parametrize(("name", "keys", "words"), [("multi_passkey", 10, 32), ("multi_passkey_short", 4, 8)])
def test_all_pass_keys_stand_in_the_text(name: str, keys: int, words: int) -> None:
    task = get_task(name)
    assert isinstance(task, MultiPassKey)
    example = task.example(1, 5000, len)
    assert example.context.count("Pass key number ") == keys == task.keys
    assert len(example.answers[0].split()) == words == task.words
    assert f"{example.answer_prefix} {example.answers[0]}." in example.context
