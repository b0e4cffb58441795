from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
import torch

import lighttransfer_core as lt
from lighttransfer_core.branches import decode_plans
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError, InvalidPromptError, InvalidWindowError
from lighttransfer_core.frontier import checking, choice
from lighttransfer_core.frontier.asking import asked_steps
from lighttransfer_core.frontier.checking import CheckProgress, check_nbytes, check_steps
from lighttransfer_core.frontier.choice import (
    PASSAGES,
    CheckedPrompt,
    CheckResult,
    ChoiceCheck,
    Kept,
    can_do,
    findings,
    is_narrow,
    least_length,
    left_out,
)
from lighttransfer_core.frontier.render import render_example
from lighttransfer_core.frontier.results import Outcome
from lighttransfer_core.frontier.summary import mean_of, proportion
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.tasks import Example, get_task
from lighttransfer_core.tasks.continuation import Passages
from lighttransfer_core.types import ConversionPlan, Window
from tests.frontier.conftest import Gibberish, gibberish_task

PLAN = ConversionPlan((0, 2), Window(4, 200))
CHECK = ChoiceCheck(PLAN, 700, rendering="raw")
WORDS = " ".join(f"word{number}" for number in range(300))


@dataclass(frozen=True, kw_only=True)
class Easy(Gibberish):
    """Whatever is said is right."""

    def score(self, answer: str, example: Example) -> float:
        return 1.0


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The only task is one that everybody can do."""
    with gibberish_task(Easy()):
        for module in (checking, choice):
            monkeypatch.setattr(module, "NEEDLES", ("gibberish",))
        yield


def run(
    lm: LoadedModel, check: ChoiceCheck, text: str | None = None, clock: Callable[[], float] = lambda: 0.0
) -> tuple[list[CheckProgress], CheckResult]:
    steps, said = check_steps(lm, check, text, clock=clock), []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return said, end.value


def test_a_model_that_can_do_nothing_reads_the_text_and_says_so(reader: LoadedModel) -> None:
    said, found = run(reader, CHECK, WORDS)
    assert found.ended == "unable"
    assert left_out(found.prompts) == list(choice.NEEDLES)
    assert [prompt for one in said for prompt in one.prompts] == list(found.prompts)
    tried = [one.task for one in found.prompts if one.task != PASSAGES and one.question == "aware"]
    assert tried == list(choice.NEEDLES) * 2, "each is tried twice, in turn"
    read = [one for one in found.prompts if one.task == PASSAGES]
    assert found.prompts[8] == read[0], "after four needles, each asked both ways"
    task = Passages(text=WORDS)
    for number, prompt in enumerate(read):
        assert prompt.seed == number
        rendered = render_example(reader.tokenizer, task, number, 700, "raw")
        prefill = lt.run_prefill(reader, torch.tensor([rendered.context]))
        ids = reader.tokenizer(rendered.example.answers[0], add_special_tokens=False).input_ids[:128]
        for plan, outcome in (
            (None, prompt.full),
            (PLAN, prompt.plan),
            (ConversionPlan((0, 1, 2, 3), PLAN.window), prompt.streaming),
        ):
            nll = lt.continuation_nll(prefill, plan, torch.tensor([ids]))
            assert outcome.nll == pytest.approx(float(nll.mean()), abs=1e-4)
    assert len(read) >= 2
    assert CheckResult.from_json(found.to_json()) == found


def test_every_fact_is_outside_of_what_a_streaming_layer_keeps(reader: LoadedModel) -> None:
    _, found = run(reader, CHECK)
    for prompt in found.prompts:
        rendered = render_example(reader.tokenizer, get_task(prompt.task), prompt.seed, 700, "raw")
        # one token a character, so places in the text are places in the prompt
        place = rendered.example.context.index(prompt.expected)
        assert place >= PLAN.window.sink
        assert place + len(prompt.expected) <= rendered.num_tokens - len(rendered.question) - PLAN.window.recent
        assert prompt.num_tokens == rendered.num_tokens
        assert len(prompt.said) == 2


def test_a_needle_is_asked_in_the_prompt_and_of_the_cut_cache(reader: LoadedModel) -> None:
    """What is said is what the plan itself says, of a prompt with its question and of one without."""
    _, found = run(reader, CHECK)
    assert [one.question for one in found.prompts] == ["aware", "agnostic"] * (len(found.prompts) // 2)
    for aware, later in zip(found.prompts[::2], found.prompts[1::2], strict=True):
        assert (aware.task, aware.seed) == (later.task, later.seed)
        rendered = render_example(reader.tokenizer, get_task(aware.task), aware.seed, 700, "raw")
        for prompt, context, question in (
            (aware, rendered.context + rendered.question, []),
            (later, rendered.context, rendered.question),
        ):
            prefill = lt.run_prefill(reader, torch.tensor([context]))
            answers = decode_plans(prefill, [None, PLAN], len(prompt.expected) + 5, question)
            for said, ids in zip(prompt.said, answers, strict=True):
                assert len(said) > 4
                assert reader.tokenizer.decode(ids, skip_special_tokens=True).strip().startswith(said)


def test_the_prompt_with_its_question_goes_on_from_the_one_without(
    reader: LoadedModel, easy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, int, int]] = []

    def spied(*given: Any) -> Any:
        asked = yield from asked_steps(*given)
        made.append((given[3], asked.prefill.taken_over, len(asked.rendered.context), asked.prefill.nbytes))
        return asked

    monkeypatch.setattr(checking, "asked_steps", spied)
    run(reader, replace(CHECK, width=0.99))
    (without, taken, context, held), (aware, taken_again, _, also_held) = made
    assert (without, taken, aware, taken_again) == ("agnostic", 0, "aware", context)
    assert held + also_held < check_nbytes(reader.spec, CHECK.length), "what is admitted has room for both"


def test_a_task_without_room_for_its_fact_is_left_out(
    reader: LoadedModel, easy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking._Asking, "_is_outside", lambda *_: False)
    _, found = run(reader, CHECK)
    assert (found.ended, found.prompts) == ("unable", ()), "it does not look for ever"


@pytest.mark.parametrize(("width", "prompts"), [(0.5, 4), (0.3, 9)])
def test_it_ends_once_the_interval_is_narrow_enough(
    reader: LoadedModel, easy: None, width: float, prompts: int
) -> None:
    _, found = run(reader, replace(CHECK, width=width))
    assert (found.ended, len(found.prompts)) == ("narrow", 2 * prompts)
    assert proportion(prompts, prompts).low > 1 - width >= proportion(prompts - 1, prompts - 1).low  # type: ignore


def test_no_prompt_is_begun_that_would_end_too_late(reader: LoadedModel, easy: None) -> None:
    ticks = count()
    said, found = run(reader, replace(CHECK, seconds=120.0, width=0.001), clock=lambda: float(next(ticks)))
    assert found.ended == "time"
    assert 2 < len(found.prompts) < 20
    assert found.seconds <= 120
    fractions = [one.fraction for one in said]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] <= 1
    _, single = run(reader, replace(CHECK, seconds=0.5, width=0.001), clock=lambda: float(next(ticks)))
    assert (single.ended, len(single.prompts)) == ("time", 2), "one prompt is asked in any case, both ways"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"length": 1921}, InvalidPromptError, "1,920 tokens at most"),
        ({"plan": ConversionPlan((7,), PLAN.window)}, InvalidPlanError, "layer 7"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    reader: LoadedModel, change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(reader, replace(CHECK, **change))


def test_a_plan_that_loses_nothing_is_no_check() -> None:
    with pytest.raises(InvalidPlanError, match="no layer"):
        replace(CHECK, plan=ConversionPlan((), PLAN.window))
    with pytest.raises(InvalidWindowError, match="loses nothing"):
        replace(CHECK, length=200)
    with pytest.raises(InvalidWindowError, match="588 tokens at least"):
        replace(CHECK, length=587)
    assert replace(CHECK, length=588).length == least_length(PLAN.window)
    with pytest.raises(InvalidInputError):
        ChoiceCheck.from_dict({"plan": {"lazy_layers": [1]}, "length": 900})


def needle(task: str, full: float, plan: float, streaming: float = 0.0) -> CheckedPrompt:
    return CheckedPrompt(task, 1, 700, Outcome(full), Outcome(plan), Outcome(streaming))


def passage(full: float, plan: float, kl: float) -> CheckedPrompt:
    return CheckedPrompt(
        PASSAGES, 0, 700, Outcome(None, full, 0.0), Outcome(None, plan, kl), Outcome(None, plan + 1, 2.0)
    )


def test_findings_count_what_the_full_model_has_right() -> None:
    prompts = [
        *[needle("passkey", 1.0, 1.0)] * 6,
        needle("passkey", 1.0, 0.5, 1.0),
        needle("passkey", 1.0, 0.0),
        needle("passkey", 0.0, 1.0, 1.0),
        needle("niah_single_1", 0.5, 1.0),
        passage(2.0, 2.1, 0.03),
        passage(1.0, 1.2, 0.05),
    ]
    later = [replace(one, question="agnostic") for one in prompts[5:8]]
    found = findings([*prompts, *later])
    assert found.aware == Kept(10, 8, by_plan=proportion(6, 8), by_window=proportion(1, 8))
    assert found.agnostic == Kept(3, 3, by_plan=proportion(1, 3), by_window=proportion(1, 3))
    assert found.nll == mean_of([2.1 - 2.0, 1.2 - 1.0])
    assert found.kl == mean_of([0.03, 0.05])
    assert is_narrow(found, 0.99)
    assert not is_narrow(found, 0.6), "of three answers an interval is wider"
    assert not is_narrow(findings(prompts), 0.99), "nothing was asked later"
    empty = findings([])
    assert (empty.aware, empty.agnostic, empty.nll, empty.kl) == (
        Kept(0, 0, None, None),
        Kept(0, 0, None, None),
        None,
        None,
    )
    assert not is_narrow(empty, 1.0)


def test_a_task_is_given_up_when_the_full_model_is_more_often_wrong() -> None:
    right, wrong = needle("passkey", 1.0, 1.0), needle("passkey", 0.0, 0.0)
    assert can_do("passkey", [])
    assert can_do("passkey", [wrong])
    assert not can_do("passkey", [wrong, wrong])
    assert can_do("passkey", [wrong, right, wrong, right, right])
    assert can_do("niah_single_1", [wrong, wrong])
    assert left_out([wrong, wrong]) == ["passkey"]


@pytest.mark.parametrize(("hits", "total"), [(8, 10), (0, 10), (10, 10), (45, 90), (1, 1)])
def test_the_interval_of_a_share_is_wilson_s(hits: int, total: int) -> None:
    """Its ends are the shares that are just so far from the one found as chance reaches in 95 of 100 samples."""
    found = proportion(hits, total)
    assert found is not None
    assert (found.mean, found.count) == (hits / total, total)
    for end in (found.low, found.high):
        assert (found.mean - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / total, abs=1e-9)
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.high - found.low > 0
    assert proportion(0, 0) is None


def test_tasks_of_a_check_need_no_download() -> None:
    for name in choice.NEEDLES:
        assert get_task(name).wheel is None
        assert re.fullmatch(r"[\w-]+", get_task(name).example(1, 900, len).answers[0])
