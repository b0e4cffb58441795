"""Tasks: seeded questions about contexts of any length, with exact answers and scorers.

To add a task, copy `passkey.py`, change its dataclass, and import it here.
"""

from lighttransfer_core.tasks import (
    arithmetic,
    continuation,
    key_value,
    mathematics,
    multi_passkey,
    needles,
    passkey,
    questions,
    variable_tracking,
    word_counts,
)
from lighttransfer_core.tasks.files import register_file
from lighttransfer_core.tasks.jsonl import FileTask, read_task_file
from lighttransfer_core.tasks.longbench import LongBench, read_longbench
from lighttransfer_core.tasks.task import (
    Count,
    Example,
    Task,
    TaskInfo,
    check_ready,
    get_task,
    is_ready,
    list_tasks,
    register,
    task_info,
)

__all__ = [
    "Count",
    "Example",
    "FileTask",
    "LongBench",
    "Task",
    "TaskInfo",
    "arithmetic",
    "check_ready",
    "continuation",
    "get_task",
    "is_ready",
    "key_value",
    "list_tasks",
    "mathematics",
    "multi_passkey",
    "needles",
    "passkey",
    "questions",
    "read_longbench",
    "read_task_file",
    "register",
    "register_file",
    "task_info",
    "variable_tracking",
    "word_counts",
]
