"""Files of questions as tasks of this process: LongBench's own, or anybody's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from lighttransfer_core.tasks.jsonl import read_lines, read_task_file
from lighttransfer_core.tasks.longbench import read_longbench
from lighttransfer_core.tasks.task import register

_LONGBENCH: Final = {"input", "context", "answers", "dataset"}
_LONGEST_NAME: Final = 60


def register_file(path: Path) -> str:
    """Makes a file of JSON lines a task; returns its name, which is another one once the file holds something else.

    Raises
    ------
    TaskFileError
        The file is missing, too large or empty, or a line of it is not a question; the message names the line.
    """
    _, first = next(iter(read_lines(path)))
    task = read_longbench(path) if first.keys() >= _LONGBENCH else read_task_file(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name = f"{task.info.name[:_LONGEST_NAME]}@{content}"
    register(replace(task, info=replace(task.info, name=name)))
    return name
