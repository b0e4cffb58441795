"""Files of questions as tasks, named after what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lighttransfer_core.errors import InvalidInputError, TaskFileError
from lighttransfer_core.frontier.bounds import check_names
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.tasks import FileTask, LongBench, get_task, register_file
from lighttransfer_core.types import Window

QUESTION = {"prompt": "Which city?", "answers": ["Paris"]}
OF_LONGBENCH = {"input": "Who?", "context": "A text.", "answers": ["Ada"], "dataset": "hotpotqa", "all_classes": None}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "mine.jsonl"
    found.write_text(json.dumps(QUESTION) + "\n" + json.dumps(QUESTION))
    return found


def test_a_file_is_a_task_whose_name_changes_with_it(file: Path) -> None:
    name = register_file(file)
    task = get_task(name)
    assert isinstance(task, FileTask)
    assert (name, task.size) == (register_file(file), 2)
    assert name.startswith("mine@")
    file.write_text(json.dumps(QUESTION))
    assert register_file(file) != name


def test_a_file_of_longbench_is_told_by_its_fields(file: Path) -> None:
    file.write_text(json.dumps(OF_LONGBENCH))
    name = register_file(file)
    assert isinstance(get_task(name), LongBench)
    assert name.startswith("longbench_hotpotqa@")


def test_what_is_no_file_of_questions_is_refused(file: Path, tmp_path: Path) -> None:
    file.write_text("")
    for wrong in (file, tmp_path / "none.jsonl"):
        with pytest.raises(TaskFileError):
            register_file(wrong)


def test_no_question_of_a_file_is_asked_twice(file: Path) -> None:
    name = register_file(file)

    def spec(lengths: tuple[int, ...], examples: int, first_seed: int) -> SweepSpec:
        return SweepSpec((name,), lengths, (Window(4, 60),), examples=examples, first_seed=first_seed)

    check_names(spec((100,), 2, 10_000))
    for lengths, examples, first_seed, said in (
        ((100,), 3, 0, "has 2 questions, and 3"),
        ((100, 200), 2, 0, "give one length"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            check_names(spec(lengths, examples, first_seed))
