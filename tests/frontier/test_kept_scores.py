from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.frontier.kept_scores import KeptScores
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader, SweepSpec
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.types import Window

WINDOWS = (Window(2, 9), Window(4, 60))
KEY = ExampleKey("passkey", 700, 5, "aware")


@pytest.fixture
def header(reader: LoadedModel) -> SweepHeader:
    return SweepHeader(SweepSpec(("passkey",), (700,), WINDOWS), reader.spec)


@pytest.fixture
def file(tmp_path: Path, header: SweepHeader) -> Path:
    """With the scores of one prompt, one of which is no number."""
    path = tmp_path / "order.json.scores"
    KeptScores(path, header, "echo").add(KEY, {one: np.array([0.1, np.nan, 1 / 3, one.sink]) for one in WINDOWS})
    return path


def test_scores_are_read_as_they_were_kept(file: Path, header: SweepHeader) -> None:
    (key, values), *others = KeptScores(file, header, "echo").done.items()
    assert (key, others) == (KEY, [])
    for window in WINDOWS:
        np.testing.assert_array_equal(values[window], [0.1, np.nan, 1 / 3, window.sink])
    assert "NaN" not in file.read_text(encoding="utf-8"), "which is no JSON"


def test_a_line_that_was_cut_short_is_left_out(file: Path, header: SweepHeader) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write('{"asked": "ab')
    kept = KeptScores(file, header, "echo")
    kept.add(replace(KEY, seed=6), kept.done[KEY])
    assert list(KeptScores(file, header, "echo").done) == [KEY, replace(KEY, seed=6)]


@pytest.mark.parametrize(
    "change", [{"last": 16}, {"windows": WINDOWS[::-1]}, {"rendering": "raw"}, {"tasks": ("passkey", "vt")}]
)
def test_scores_of_another_question_are_left_alone(file: Path, header: SweepHeader, change: dict[str, object]) -> None:
    other = replace(header, spec=replace(header.spec, **change))  # type: ignore[arg-type]
    for kept in (KeptScores(file, other, "echo"), KeptScores(file, header, "recall")):
        assert kept.done == {}
        kept.add(KEY, {one: np.zeros(4) for one in WINDOWS})
    assert KeptScores(file, replace(header, spec=header.spec.of(9)), "echo").done.keys() == {KEY}, "more of the same"
    assert len(file.read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize("line", ["nonsense", "[1]", "{}", '{"key": {}, "asked": "", "values": {}}'])
def test_a_file_of_something_else_is_refused(file: Path, header: SweepHeader, line: str) -> None:
    before = f"{file.read_text(encoding='utf-8')}{line}\n"
    file.write_text(before, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"Line 2 of .*order\.json\.scores holds no scores of `calibrate`"):
        KeptScores(file, header, "echo")
    assert file.read_text(encoding="utf-8") == before


def test_scores_of_another_number_of_layers_are_refused(file: Path, header: SweepHeader) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("[0.1, ", "["), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not 4 layers"):
        KeptScores(file, header, "echo")
