"""LongBench from one's own download, on lines of its form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lighttransfer_core.errors import TaskFileError, TaskLengthError
from lighttransfer_core.tasks import LongBench, longbench, read_longbench


def line(dataset: str, answers: list[str], **more: Any) -> dict[str, Any]:
    return {
        "input": "What runs past the mill?",
        "context": "Start. " + "Filler words. " * 200 + "End.",
        "answers": answers,
        "dataset": dataset,
        "length": 400,
        "language": "en",
        "all_classes": None,
        "_id": "1",
        **more,
    }


def read(path: Path, *lines: dict[str, Any]) -> LongBench:
    file = path / "set.jsonl"
    file.write_text("".join(f"{json.dumps(item)}\n" for item in lines))
    return read_longbench(file)


def test_a_long_context_loses_its_middle(tmp_path: Path) -> None:
    task = read(tmp_path, line("hotpotqa_e", ["The river"]))
    assert (task.info.name, task.size, task.max_new_tokens) == ("longbench_hotpotqa", 1, 32)
    whole = task.example(0, 10_000, len)
    assert whole.context.endswith(line("x", [])["context"])
    cut = task.example(1, 1000, len)
    assert 990 <= len(cut.text) <= 1000
    assert "Start. Filler" in cut.context
    assert cut.context.endswith("words. End.")
    assert cut.question == whole.question == "\n\nQuestion: What runs past the mill?\n"
    with pytest.raises(TaskLengthError, match="Question 1 of longbench_hotpotqa needs at least"):
        task.example(1, 50, len)


@pytest.mark.parametrize(
    ("dataset", "references", "answer", "score"),
    [
        ("qasper", ["a river", "two boats"], "The river", 1),
        ("gov_report", ["the river runs slowly"], "the river stands slowly", 0.75),
        ("triviaqa", ["river"], "\nriver\nQuestion: and more", 1),
        ("trec", ["Date"], "Date\nNumber", 1),
        ("trec", ["Date"], "Date or Number", 0.5),
        ("passage_count", ["7"], "7", 1),
        ("passage_retrieval_en", ["Paragraph 7"], "Paragraph 7 or 8", 0.5),
        ("lcc", ["return x"], "return x\n", 1),
    ],
)
def test_each_set_has_its_metric(
    tmp_path: Path, dataset: str, references: list[str], answer: str, score: float
) -> None:
    task = read(tmp_path, line(dataset, references, all_classes=["Date", "Number"]))
    assert task.score(answer, task.example(0, 10_000, len)) == score


def test_every_known_set_can_be_read(tmp_path: Path) -> None:
    for dataset in longbench._DATASETS:
        task = read(tmp_path, line(dataset, ["7"], all_classes=["7"]))
        example = task.example(0, 10_000, len)
        assert "{input}" not in example.text
        assert task.score("7", example) == 1
        assert task.info.scorer


def test_braces_in_a_question_stay_as_they_are(tmp_path: Path) -> None:
    example = read(tmp_path, line("lcc", ["x"], input="f'{input}{x}'")).example(0, 10_000, len)
    assert example.question.startswith("f'{input}{x}'\n")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line("unknown", ["a"])], r"Line 1: 'unknown' is not a data set of LongBench known here: narrativeqa, "),
        ([line("lcc", ["a"]), line("qasper", ["a"])], r"Line 2 is of 'qasper', those before of 'lcc'"),
        ([line("lcc", ["a"], context=None)], r"Line 1: 'context' is not a string"),
        ([line("lcc", [])], r"Line 1: 'answers' is not a list of strings"),
        ([line("trec", ["a"])], r"Line 1: 'all_classes' is not a list of strings"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(TaskFileError, match=said):
        read(tmp_path, *lines)
