"""Competition problems with short prompts and long solutions: MATH500 and two years of AIME.

The length asked for is ignored: a problem is as long as it is. The seed is the number of the problem, and begins
again where they end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from lighttransfer_core.tasks.final_answer import final_answer_equals
from lighttransfer_core.tasks.sources import MATHEMATICS, Wheel, fetch
from lighttransfer_core.tasks.task import Count, Example, Task, TaskInfo, register

_SCORER = (
    "1 if the last boxed expression of the answer, or its last number where nothing is boxed, is the reference once "
    "both are written alike; 0 if not."
)
_INTRO = "Solve the problem below. Reason step by step, and put the final answer into \\boxed{}."


@cache
def problems(collection: str) -> tuple[tuple[str, str], ...]:
    """Problems and answers of a collection, in its order.

    Raises
    ------
    TaskDataError
        They are not in the cache and cannot be fetched.
    """
    items = json.loads((fetch(MATHEMATICS) / "problems.json").read_text(encoding="utf-8"))
    return tuple((item["question"], item["answer"]) for item in items if item["data_source"] == collection)


@dataclass(frozen=True, kw_only=True)
class Mathematics(Task):
    """Solves a problem. `collection` is its name in the package."""

    collection: str
    max_new_tokens: int = 4096

    @property
    def wheel(self) -> Wheel:
        return MATHEMATICS

    @property
    def size(self) -> int:
        """Problems that there are."""
        return len(problems(self.collection))

    def example(self, seed: int, num_tokens: int, count: Count) -> Example:
        """The problem of that number; `num_tokens` is ignored."""
        known = problems(self.collection)
        problem, answer = known[seed % len(known)]
        return Example(self.info.name, seed, _INTRO, f"\n\n{problem}\n", "", (answer,))

    def score(self, answer: str, example: Example) -> float:
        return float(final_answer_equals(answer, example.answers[0]))


def _info(name: str, title: str, description: str) -> TaskInfo:
    ignored = "The context length is not used."
    return TaskInfo(name, title, f"{description} {ignored}", "MMATH (arXiv 2505.19126), in English", _SCORER)


register(
    Mathematics(
        info=_info("math500", "MATH500", "The 311 problems of MATH500 that MMATH keeps."),
        collection="MATH500",
    )
)
register(Mathematics(info=_info("aime24", "AIME 2024", "The 30 problems of AIME 2024."), collection="AIME2024"))
register(
    Mathematics(
        info=_info("aime25", "AIME 2025", "The 15 problems of AIME 2025 that MMATH keeps."),
        collection="AIME2025",
    )
)
