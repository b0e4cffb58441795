"""The competition problems: every reference is right in its own box, and wrong in another's."""

from __future__ import annotations

import pytest

from lighttransfer_core.tasks import get_task
from lighttransfer_core.tasks.mathematics import Mathematics


@pytest.mark.parametrize(("name", "size"), [("math500", 311), ("aime24", 30), ("aime25", 15)])
def test_every_reference_is_right_and_no_neighbour_is(name: str, size: int) -> None:
    task = get_task(name)
    assert isinstance(task, Mathematics)
    assert task.size == size
    examples = [task.example(seed, 0, len) for seed in range(size)]
    for example, other in zip(examples, [*examples[1:], examples[0]], strict=True):
        assert task.score(f"Therefore $x = \\boxed{{{example.answers[0].strip('$')}}}$.", example) == 1
        if other.answers != example.answers:
            assert task.score(f"\\boxed{{{other.answers[0].strip('$')}}}", example) == 0


def test_problems_begin_again_where_they_end() -> None:
    task = get_task("aime25")
    first, again = task.example(0, 0, len), task.example(15, 0, len)
    assert (first.context, first.question, first.answers) == (again.context, again.question, again.answers)
    assert "\\boxed{}" in first.context
