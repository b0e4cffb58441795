from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.pooling import part_of, together
from lighttransfer_core.frontier.results import ExampleResult, Outcome, Sweep
from lighttransfer_core.frontier.spec import SweepHeader, SweepSpec
from lighttransfer_core.frontier.summary import difference, point, scored
from lighttransfer_core.frontier.tables import markdown
from lighttransfer_core.types import Window
from tests.frontier.test_summary import CELL, MODEL, WINDOW, many, result

SPEC = SweepSpec(tasks=("a",), lengths=(700,), windows=(WINDOW,), shares=(0.5,), rankings=("good", "bad"))


def sweep(results: list[ExampleResult], **changes: Any) -> Sweep:
    return Sweep(SweepHeader(replace(SPEC, **changes), MODEL), tuple(results))


def with_ranking(one: ExampleResult, name: str, score: float) -> ExampleResult:
    """The same prompt under one more ranking, which converts layers 1 and 2 first."""
    orders = {WINDOW: {**one.orders[WINDOW], name: (1, 2, 0, 3)}}
    return replace(one, orders=orders, outcomes={WINDOW: {**one.outcomes[WINDOW], (1, 2): Outcome(score)}})


def test_numbers_are_over_the_prompts_of_all() -> None:
    results = many()
    (found,) = together([sweep(results[:60]), sweep(results[60:], first_seed=60)])
    assert len(found.parts) == 2
    assert point(found.results, CELL, "good", 2, scored) == point(results, CELL, "good", 2, scored)
    assert found.title == "tiny, a, 700 tokens, several sweeps together"
    assert (found.header.spec.first_seed, found.header.spec.examples) == (0, 200)
    assert together([sweep(results)])[0].title == "tiny, a, 700 tokens, seeds from 0", "alone it stays as it is"
    assert together([]) == []


def test_a_ranking_counts_on_the_prompts_that_it_ranked() -> None:
    first = [result(seed, 1.0, 1.0, 0.0) for seed in range(3)]
    later = [with_ranking(result(seed, 1.0, 0.0, 0.0), "new", 1.0) for seed in (3, 4)]
    (found,) = together([sweep(first), sweep(later, first_seed=3, rankings=("good", "bad", "new"))])
    new, good = (point(found.results, CELL, name, 2, scored) for name in ("new", "good"))
    assert new is not None
    assert good is not None
    assert (new.value.mean, new.value.count) == (1.0, 2)
    assert (good.value.mean, good.value.count) == (0.6, 5)
    lead = difference(found.results, CELL, "new", ["good"], 2, scored)
    assert lead is not None
    assert (lead.mean, lead.count) == (1.0, 2), "only where both ranked"
    assert "| `new`, 2 prompts | 1.00 [1.00, 1.00], 1.00 |" in markdown(found)


def test_sweeps_of_the_same_prompts_stay_apart() -> None:
    """A ranking would have numbers at the other's shares, but for the prompts at which both convert the same layers."""
    one = result(0, 1.0, 1.0, 0.0)
    alone = [sweep([one, result(1, 1.0, 1.0, 0.0)]), sweep([one], shares=(0.25,))]
    assert together(alone) == alone


def test_all_that_was_asked_is_asked_of_both() -> None:
    first = sweep([result(0, 1.0, 1.0, 0.0)], lengths=(700, 900))
    later = sweep([result(1, 1.0, 1.0, 0.0)], lengths=(500, 700), shares=(0.25, 0.75), first_seed=1)
    (found,) = together([first, later])
    spec = found.header.spec
    assert (spec.lengths, spec.shares) == ((500, 700, 900), (0.25, 0.5, 0.75))
    assert found.parts == (part_of(first), part_of(later))


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ("a", "b")},
        {"windows": (WINDOW, Window(4, 61))},
        {"last": 16},
        {"rendering": "raw"},
        {"max_new_tokens": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_was_asked_otherwise_stays_apart(changes: dict[str, Any]) -> None:
    alone = [sweep([result(0, 1.0, 1.0, 0.0)]), sweep([result(1, 1.0, 1.0, 0.0)], **changes)]
    assert together(alone) == alone


def test_another_model_and_another_order_of_a_name_stay_apart() -> None:
    here, there = sweep([]), sweep([], first_seed=5)
    other = replace(there, header=replace(there.header, model=replace(MODEL, dtype="bfloat16")))
    assert together([here, other]) == [here, other]
    made = StaticOrder("calibrated_x", WINDOW, (0, 1, 2, 3))
    mine = sweep([], orders=(made,))
    theirs = sweep([], orders=(replace(made, order=(3, 2, 1, 0)),), first_seed=5)
    again = sweep([], orders=(replace(made, made="told otherwise"),), first_seed=9)
    assert [len(one.parts) for one in together([mine, theirs, again])] == [2, 0]
    metric = sweep([], rankings=("calibrated_x",), first_seed=5)
    assert together([mine, metric]) == [mine, metric]
    chosen = sweep([], orders=(replace(made, lazy=2),), first_seed=5)
    assert together([here, chosen]) == [here, chosen], "a set of layers is tried at one share"
