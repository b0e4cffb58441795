"""Tasks: seeded questions about contexts of any length, with exact answers and scorers.

To add a task, copy `passkey.py`, change its dataclass, and import it here.
"""

from lighttransfer_core.tasks import key_value, needles, passkey
from lighttransfer_core.tasks.task import (
    Count,
    Example,
    Task,
    TaskInfo,
    get_task,
    list_tasks,
    register,
    task_info,
)

__all__ = [
    "Count",
    "Example",
    "Task",
    "TaskInfo",
    "get_task",
    "key_value",
    "list_tasks",
    "needles",
    "passkey",
    "register",
    "task_info",
]
