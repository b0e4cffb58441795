from __future__ import annotations

from dataclasses import replace

import pytest

from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.frontier.spec import SweepHeader, SweepSpec
from lighttransfer_core.frontier.verdict import verdicts
from tests.frontier.test_summary import MODEL, WINDOW, result


def sweep(count: int, good: float, bad: float, full: float = 1.0) -> Sweep:
    """Two tasks; `good` and `bad` are how often each ranking is right with two of four layers lazy."""
    spec = SweepSpec(tasks=("a", "b"), lengths=(700,), windows=(WINDOW,), shares=(0.5, 1.0))
    results = [
        result(seed, full, float(seed < good * count), float(seed < bad * count), task)
        for seed in range(count)
        for task in ("a", "b")
    ]
    return Sweep(SweepHeader(spec, MODEL), tuple(results))


def test_the_ranking_that_goes_furthest_comes_first() -> None:
    first, second = verdicts(sweep(40, good=0.95, bad=0.5), 700, WINDOW, "aware")
    assert (first.ranking, first.share) == ("good", 0.5)
    assert first.weakest.ratio.mean == pytest.approx(0.95)
    assert (second.ranking, second.share) == ("bad", 0.0)
    assert second.weakest.ratio.mean == pytest.approx(0.5)


def test_the_weakest_task_decides() -> None:
    mixed = sweep(40, good=0.95, bad=0.5)
    worse = tuple(
        replace(one, outcomes={WINDOW: {**one.outcomes[WINDOW], (0, 1): one.outcomes[WINDOW][(2, 3)]}})
        if one.key.task == "b"
        else one
        for one in mixed.results
    )
    found = {one.ranking: one for one in verdicts(Sweep(mixed.header, worse), 700, WINDOW, "aware")}
    assert found["good"].share == 0.0
    assert found["good"].task == "b"


@pytest.mark.parametrize("count", [0, 19])
def test_few_prompts_give_no_verdict(count: int) -> None:
    assert verdicts(sweep(count, good=1.0, bad=0.0), 700, WINDOW, "aware") == []


def test_a_share_that_was_tried_on_few_prompts_is_none_that_was_tried() -> None:
    """As where sweeps with other shares are taken together."""
    held = sweep(40, good=1.0, bad=0.0)
    more = replace(held, header=replace(held.header, spec=replace(held.header.spec, shares=(0.25, 0.5))))
    (first, *_) = verdicts(more, 700, WINDOW, "aware")
    assert (first.ranking, first.share, first.may_go_further) == ("good", 0.5, False)


def test_a_ranking_may_go_further_where_larger_shares_were_not_tried_of_it() -> None:
    held = sweep(40, good=1.0, bad=0.5)
    more = replace(held, header=replace(held.header, spec=replace(held.header.spec, shares=(0.5, 0.75))))
    found = {one.ranking: (one.share, one.may_go_further) for one in verdicts(more, 700, WINDOW, "aware")}
    assert found == {"good": (0.5, True), "bad": (0.0, False)}
    fallen = {one.ranking: one.may_go_further for one in verdicts(held, 700, WINDOW, "aware")}
    assert fallen == {"good": False, "bad": False}


def test_a_task_that_the_full_model_cannot_do_says_nothing() -> None:
    assert verdicts(sweep(40, good=0.0, bad=0.0, full=0.0), 700, WINDOW, "aware") == []


def test_another_question_has_no_verdict() -> None:
    assert verdicts(sweep(40, good=1.0, bad=0.0), 700, WINDOW, "agnostic") == []
    assert verdicts(sweep(40, good=1.0, bad=0.0), 1400, WINDOW, "aware") == []
