"""One's own questions from a file: checked line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lighttransfer_core.errors import TaskFileError, TaskLengthError
from lighttransfer_core.tasks import Example, jsonl, read_task_file


def write(path: Path, *lines: Any) -> Path:
    file = path / "mine.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return file


def test_prompts_and_questions_are_read(tmp_path: Path) -> None:
    first = {"prompt": "Which city?", "answers": ["Paris"], "scorer": "exact"}
    second = {"context": "A text.", "question": "How many?", "answers": ["7", "8"], "answer_prefix": "There are"}
    task = read_task_file(write(tmp_path, first, "", second))
    assert (task.info.name, task.size) == ("mine", 2)
    assert task.example(0, 40, len) == Example("mine", 0, "", "Which city?", "", ("Paris",))
    example = task.example(3, 40, len)
    assert example == Example("mine", 3, "A text.", "\n\nHow many?", "There are", ("7", "8"))
    assert task.score("7 and 80", example) == 0.5
    assert task.score("Paris", task.example(2, 40, len)) == 1
    assert task.score("Paris!", task.example(2, 40, len)) == 0


def test_a_question_that_is_longer_than_asked_for_is_refused(tmp_path: Path) -> None:
    task = read_task_file(write(tmp_path, {"prompt": "Which city?", "answers": ["Paris"]}))
    assert task.example(0, 11, len).question == "Which city?"
    with pytest.raises(TaskLengthError, match="Question 0 of mine has 11 tokens"):
        task.example(0, 10, len)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"Line 2 is not JSON"),
        ("[1]", r"Line 2 is not a JSON object"),
        ("[" * 100_000, r"Line 2 is not JSON"),
        ('{"answers": ["a"]}', r"Line 2 needs either 'prompt', or 'context' and 'question'"),
        ({"prompt": "a", "question": "b", "answers": ["a"]}, r"Line 2 needs either"),
        ({"prompt": " ", "answers": ["a"]}, r"Line 2 asks nothing"),
        ({"prompt": 3, "answers": ["a"]}, r"Line 2: 'prompt' is not a string"),
        ({"prompt": "a"}, r"Line 2: 'answers' is not a list of strings"),
        ({"prompt": "a", "answers": []}, r"Line 2: 'answers' is not a list of strings"),
        ({"prompt": "a", "answers": "a"}, r"Line 2: 'answers' is not a list of strings"),
        ({"prompt": "a", "answers": ["a", ""]}, r"Line 2: 'answers' is not a list of strings"),
        ({"prompt": "a", "answers": ["a"], "scorer": "eval"}, r"Line 2: 'eval' is not a scorer: choose one of contain"),
        ({"prompt": "a", "answers": ["a"], "scorer": ["f1"]}, r"Line 2: 'scorer' is not a string"),
        ({"prompt": "a", "answers": ["seven"], "scorer": "last_number"}, r"Line 2: 'seven' is not a number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(TaskFileError, match=said):
        read_task_file(write(tmp_path, {"prompt": "a", "answers": ["a"]}, line))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b'{"prompt": "\xff\xfe"}')
    with pytest.raises(TaskFileError, match="Line 1 is not JSON"):
        read_task_file(tmp_path / "mine.jsonl")


def test_missing_empty_and_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskFileError, match="There is no file"):
        read_task_file(tmp_path / "none.jsonl")
    with pytest.raises(TaskFileError, match="is empty"):
        read_task_file(write(tmp_path, "", ""))
    monkeypatch.setattr(jsonl, "MOST_BYTES", 10)
    with pytest.raises(TaskFileError, match="and 10 are allowed"):
        read_task_file(write(tmp_path, {"prompt": "a", "answers": ["a"]}))
