"""Anybody's own questions as a task: a file of JSON lines.

    {"prompt": "...", "answers": ["..."], "scorer": "contains_any"}
    {"context": "...", "question": "...", "answers": ["...", "..."], "answer_prefix": "The answers are"}

`scorer` is one of `lighttransfer_core.tasks.scorers.SCORERS` and `contains_all` where a line has none. Nothing in the
file is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lighttransfer_core.errors import TaskFileError, TaskLengthError
from lighttransfer_core.tasks.scorers import SCORERS
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo

MOST_BYTES = 256 * 1024 * 1024
_FORM = 'a line is a JSON object like {"context": "...", "question": "...", "answers": ["..."], "scorer": "f1"}'
_STRINGS = ("context", "question", "prompt", "answer_prefix", "scorer")


@dataclass(frozen=True)
class Line:
    """A question of a file, checked."""

    context: str
    question: str
    answer_prefix: str
    answers: tuple[str, ...]
    scorer: str


@dataclass(frozen=True, kw_only=True)
class FileTask(Task):
    """The questions of a file. The seed is the number of the question, and begins again where they end."""

    lines: tuple[Line, ...]

    @property
    def size(self) -> int:
        """Questions that there are."""
        return len(self.lines)

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        """The question of that number; it is as long as it is, and `num_tokens` the most that is taken."""
        line = self.lines[seed % len(self.lines)]
        example = Example(self.info.name, seed, line.context, line.question, line.answer_prefix, line.answers)
        length = count(example.text)
        if length > num_tokens:
            raise TaskLengthError(
                f"Question {seed} of {self.info.name} has {length:,} tokens with this tokenizer, and {num_tokens:,} "
                "are asked for at most: ask for a longer context, or leave the question out of the file."
            )
        return example

    def score(self, answer: str, example: Example) -> float:
        return SCORERS[self.lines[example.seed % len(self.lines)].scorer](answer, example.answers)


def read_task_file(path: Path, max_new_tokens: int = 128) -> FileTask:
    """The task that a file of JSON lines describes; its name is the file's.

    Raises
    ------
    TaskFileError
        The file is missing, too large or empty, or a line of it is not a question; the message names the line.
    """
    lines = tuple(_line(number, data) for number, data in read_lines(path))
    info = TaskInfo(
        path.stem, path.stem, f"The {len(lines):,} questions of {path.name}.", path.name, "As each line says."
    )
    return FileTask(info=info, max_new_tokens=max_new_tokens, lines=lines)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its line number; blank lines are passed over.

    Raises
    ------
    TaskFileError
        The file cannot be read, is larger than `MOST_BYTES` or holds nothing, or a line is not a JSON object.
    """
    if not path.is_file():
        raise TaskFileError(f"There is no file {path}: give the path of a file of JSON lines.")
    if path.stat().st_size > MOST_BYTES:
        raise TaskFileError(f"{path.name} has {path.stat().st_size:,} bytes, and {MOST_BYTES:,} are allowed: split it.")
    empty = True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                empty = False
                yield number, _object(number, line)
    if empty:
        raise TaskFileError(f"{path.name} is empty: {_FORM}.")


def _object(number: int, line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, a number too long, lists too deep
        raise TaskFileError(f"Line {number} is not JSON ({error}): {_FORM}.") from error
    if not isinstance(data, dict):
        raise TaskFileError(f"Line {number} is not a JSON object: {_FORM}.")
    return data


def _line(number: int, data: dict[str, Any]) -> Line:
    for name in _STRINGS:
        if not isinstance(data.get(name, ""), str):
            raise TaskFileError(f"Line {number}: {name!r} is not a string: {_FORM}.")
    if ("prompt" in data) == ("question" in data):
        raise TaskFileError(f"Line {number} needs either 'prompt', or 'context' and 'question': {_FORM}.")
    context, question = _parts(data)
    if not (context + question).strip():
        raise TaskFileError(f"Line {number} asks nothing: write at least one word.")
    scorer = data.get("scorer", "contains_all")
    if scorer not in SCORERS:
        raise TaskFileError(f"Line {number}: {scorer!r} is not a scorer: choose one of {', '.join(SCORERS)}.")
    answers = strings(number, data, "answers")
    if scorer == "last_number":
        check_numbers(number, answers)
    return Line(context, question, data.get("answer_prefix", ""), answers, scorer)


def _parts(data: dict[str, Any]) -> tuple[str, str]:
    if "prompt" in data:
        return "", data["prompt"]
    context, question = data.get("context", ""), data["question"]
    return context, question if not context or question[:1].isspace() else f"\n\n{question}"


def strings(number: int, data: dict[str, Any], name: str) -> tuple[str, ...]:
    """A field that is a list of strings, none of them blank.

    Raises
    ------
    TaskFileError
        It is missing, empty or something else.
    """
    value = data.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item.strip() for item in value):
        raise TaskFileError(f"Line {number}: {name!r} is not a list of strings that say something: {_FORM}.")
    return tuple(value)


def check_numbers(number: int, answers: tuple[str, ...]) -> None:
    """Refuses references that are not plain decimal numbers."""
    for answer in answers:
        if not re.fullmatch(r"-?\d+(,\d{3})*(\.\d+)?", answer.strip()):
            raise TaskFileError(f"Line {number}: {answer!r} is not a number, which the scorer last_number compares.")
