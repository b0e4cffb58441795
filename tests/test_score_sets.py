"""Files of scores: what was saved is read back, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lighttransfer_core.errors import InvalidScoresError
from lighttransfer_core.score_sets import MAX_NBYTES, ScoreSet
from lighttransfer_core.types import ModelIdentity
from tests.viz.conftest import make_scores

MODEL = ModelIdentity("tiny", None, 6, 3, 1, 8)


def made() -> ScoreSet:
    scores = make_scores()
    object.__setattr__(scores, "model", MODEL)
    return ScoreSet("policy, tiny", scores, "agnostic", {"prompt": "policy", "version": "0.1.0"})


def test_a_file_reads_back() -> None:
    saved = made()
    read = ScoreSet.from_bytes(saved.to_json().encode())
    assert (read.name, read.question, read.made) == (saved.name, saved.question, saved.made)
    assert read.scores.ranking() == saved.scores.ranking()
    assert (read.scores.window, read.scores.model) == (saved.scores.window, MODEL)
    np.testing.assert_array_equal(read.scores.per_query, saved.scores.per_query)


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    data = made().to_dict()
    change(data)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no scores"),
        (b'{"format": "lighttransfer-session"}', "no scores"),
        (changed(lambda d: d.update(version=2)), "version 2"),
        (b" " * (MAX_NBYTES + 1), "bytes"),
    ],
)
def test_what_is_no_file_of_scores_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidScoresError, match=words):
        ScoreSet.from_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("scores"),
        lambda d: d.update(name=""),
        lambda d: d.update(name=["x"]),
        lambda d: d.update(name="x" * 301),
        lambda d: d.update(question="maybe"),
        lambda d: d.update(made={"a": 1}),
        lambda d: d.update(made=[]),
        lambda d: d["scores"].update(values=[]),
        lambda d: d["scores"].update(values=[0.1] * 5),
        lambda d: d["scores"].update(values=[float("nan")] * 6),
        lambda d: d["scores"].update(values=[10**400] * 6),
        lambda d: d["scores"].update(values=["0.5"] * 6),
        lambda d: d["scores"].update(values=None),
        lambda d: d["scores"].update(rest=None),
        lambda d: d["scores"].update(learned_sink=[0.1]),
        lambda d: d["scores"].update(per_head=[[0.1, 0.2]] * 5),
        lambda d: d["scores"].update(per_head=[[0.1, 0.2]] * 5 + [[0.1]]),
        lambda d: d["scores"].update(per_query=[[]] * 6),
        lambda d: d["scores"].update(per_query=7),
        lambda d: d["scores"].update(convertible=None),
        lambda d: d["scores"].update(convertible=[1, 1]),
        lambda d: d["scores"].update(convertible=[6]),
        lambda d: d["scores"].update(convertible=[True]),
        lambda d: d["scores"].update(window={"sink": -1, "recent": 5}),
        lambda d: d["scores"].update(window=[4, 5]),
        lambda d: d["scores"].update(last=0),
        lambda d: d["scores"].update(num_tokens=10**400),
        lambda d: d["scores"].update(informative="yes"),
        lambda d: d["scores"]["model"].update(num_layers=7),
        lambda d: d["scores"]["model"].update(name=None),
    ],
)  # fmt: skip
def test_damaged_scores_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(InvalidScoresError, match="damaged"):
        ScoreSet.from_bytes(changed(change))
