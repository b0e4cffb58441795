"""What a task is, and the registry of them.

A task makes questions about a context of any length, each with its exact answer, and scores what a model answers. It
knows neither model nor tokenizer: whoever asks for an example brings a function that counts the tokens of a text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from lighttransfer_core.errors import TaskDataError, UnknownTaskError
from lighttransfer_core.tasks.sources import Wheel, is_here
from lighttransfer_core.types import JsonRecord

Count = Callable[[str], int]
"""Counts the tokens of a text, special tokens aside."""

_registry: dict[str, Task] = {}


@dataclass(frozen=True)
class Example(JsonRecord):
    """One question with its context.

    Attributes
    ----------
    context
        The instruction and the haystack: everything before the question.
    question
        Begins with what separates it from the context; context and question together are the user's message.
    answer_prefix
        What the answer begins with, or "". It is given to the model, and not scored.
    answers
        The reference strings.
    depths
        Where the facts stand: the character `round(depth * len(context))` is the first one of a fact.
    """

    task: str
    seed: int
    context: str
    question: str
    answer_prefix: str
    answers: tuple[str, ...]
    depths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", tuple(self.answers))
        object.__setattr__(self, "depths", tuple(self.depths))

    @property
    def text(self) -> str:
        """All that the model is given."""
        return f"{self.context}{self.question}{self.answer_prefix}"


@dataclass(frozen=True)
class TaskInfo(JsonRecord):
    """What a page says of a task; `scorer` says how an answer is scored."""

    name: str
    title: str
    description: str
    source: str
    scorer: str


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Makes examples and scores answers.

    Attributes
    ----------
    max_new_tokens
        How long an answer may become.
    scored_by
        "answer" where `score` judges generated text; "likelihood" where the references are a continuation whose
        perplexity, or whose divergence from the full model, is the result.
    """

    info: TaskInfo
    max_new_tokens: int = 128
    scored_by: ClassVar[Literal["answer", "likelihood"]] = "answer"

    @property
    def wheel(self) -> Wheel | None:
        """What its texts come in; None: it makes them all itself."""
        return None

    @property
    def size(self) -> int | None:
        """How many questions there are; None: a new one for every seed."""
        return None

    @abstractmethod
    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        """The question of that seed, with `num_tokens` tokens in context, question and answer prefix.

        From 1,000 tokens up the length is met within 1%, and never exceeded. The same seed, length and tokenizer
        give the same example in every process.

        Raises
        ------
        TaskLengthError
            The task needs more tokens than that, or has no text for so many.
        TaskDataError
            The task's texts are not in the cache and cannot be fetched.
        """

    @abstractmethod
    def score(self, answer: str, example: Example) -> float:
        """How right an answer is, 0 to 1; nan where the task is scored by likelihood."""


def register(task: Task) -> Task:
    """Adds a task to the registry."""
    _registry[task.info.name] = task
    return task


def get_task(name: str) -> Task:
    """The task of that name.

    Raises
    ------
    UnknownTaskError
        No task has that name.
    """
    if name not in _registry:
        raise UnknownTaskError(f"{name!r} is not a task: choose one of {', '.join(list_tasks())}.")
    return _registry[name]


def is_ready(name: str) -> bool:
    """Whether a task can be asked without a download."""
    wheel = get_task(name).wheel
    return wheel is None or is_here(wheel)


def check_ready(name: str) -> None:
    """Refuses a task that would download its texts first.

    Raises
    ------
    UnknownTaskError, TaskDataError
    """
    if not is_ready(name):
        raise TaskDataError(
            f"The texts of {name} are not on this machine yet: run `python -m lighttransfer_core tasks --fetch {name}` "
            "here, or choose a task that makes its own."
        )


def list_tasks() -> list[str]:
    """Names of the registered tasks."""
    return sorted(_registry)


def task_info(name: str) -> TaskInfo:
    """What a page says of that task."""
    return get_task(name).info
