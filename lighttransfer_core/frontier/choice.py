"""Whether one plan holds: what a check asks, what it found prompt by prompt, and the numbers over that.

Plain data; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Interval

from lighttransfer_core.errors import InvalidPlanError, InvalidPromptError, InvalidWindowError
from lighttransfer_core.frontier.results import Outcome
from lighttransfer_core.frontier.spec import Question, Tokens, check_room_outside
from lighttransfer_core.frontier.summary import Estimate, mean_of, proportion
from lighttransfer_core.types import ConversionPlan, JsonRecord, ModelSpec, Rendering, Window

NEEDLES = ("niah_single_1", "passkey", "niah_multikey_2", "niah_multikey_3")
"""Tasks that make their own texts, and whose answers are right or wrong."""
PASSAGES = "passages"
"""The task whose prompts are only read."""
FIRST_SEED = 1_000_000
"""Far from the seeds of sweeps, so that a ranking is not checked on the prompts that it was chosen by."""

ANSWER_TOKENS = 128
"""Room for an answer behind a prompt."""

_ROOM_TOKENS = 384
"""Between sinks and recent tokens, so that a fact lands there often enough, with room for the question behind it."""
_TRIES = 2
"""Wrong answers of the full model after which a task is left out, unless it has given more right ones."""

Ended = Literal["narrow", "time", "unable"]
"""The interval is narrow enough; the time is up; the full model can answer nothing of what may be asked."""


@dataclass(frozen=True)
class ChoiceCheck(JsonRecord):
    """Holds a plan against the full model on the same prompts, until that says enough.

    Parameters
    ----------
    length
        Tokens of a prompt; met within 1% and never exceeded. At least `least_length` of the window.
    seconds
        After so long no further prompt is begun.
    width
        The check ends once the intervals of the shares of answers kept, with the question in the prompt and asked of
        the cut cache, are narrower.
    """

    plan: ConversionPlan
    length: Tokens
    seconds: Annotated[float, Interval(gt=0.0, le=3600.0)] = 120.0
    width: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.1
    rendering: Rendering = "chat"
    first_seed: Annotated[int, Interval(ge=0, le=2**31 - 1)] = FIRST_SEED

    def __post_init__(self) -> None:
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))
        if not self.plan.lazy_layers:
            raise InvalidPlanError("The plan converts no layer, so there is nothing to check: convert at least one.")
        check_room_outside(self.plan.window, self.length)
        window, least = self.plan.window, least_length(self.plan.window)
        if self.length < least:
            raise InvalidWindowError(
                f"The window keeps {window.size:,} tokens, which leaves no room for facts outside of it in a prompt of "
                f"{self.length:,}: check at {least:,} tokens at least, or give a smaller window."
            )


def least_length(window: Window) -> int:
    """Tokens of the shortest prompt that has room for facts outside of the window."""
    return window.size + _ROOM_TOKENS


def check_positions(model: ModelSpec, length: int) -> None:
    """Refuses prompts that outgrow the model's positions with their answers. Raises InvalidPromptError."""
    if length + ANSWER_TOKENS > model.max_positions:
        raise InvalidPromptError(
            f"Prompts of {length:,} tokens and their answers do not fit the {model.max_positions:,} positions of "
            f"{model.name}: check at {max(model.max_positions - ANSWER_TOKENS, 0):,} tokens at most."
        )


@dataclass(frozen=True)
class CheckedPrompt(JsonRecord):
    """How the full model, the plan, and all layers streaming did on one prompt.

    Attributes
    ----------
    said
        What they wrote, cut short; empty of a passage, which is only read.
    question
        Whether the question stood in the prompt or was asked of the cut cache; each needle is asked both ways.
    """

    task: str
    seed: int
    num_tokens: int
    full: Outcome
    plan: Outcome
    streaming: Outcome
    expected: str = ""
    said: tuple[str, ...] = ()
    question: Question = "aware"

    def __post_init__(self) -> None:
        for name in ("full", "plan", "streaming"):
            value: Any = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, Outcome.from_dict(value))
        object.__setattr__(self, "said", tuple(self.said))


@dataclass(frozen=True)
class CheckResult(JsonRecord):
    """A check that has ended."""

    check: ChoiceCheck
    prompts: tuple[CheckedPrompt, ...]
    ended: Ended
    seconds: float

    def __post_init__(self) -> None:
        if isinstance(self.check, dict):
            object.__setattr__(self, "check", ChoiceCheck.from_dict(self.check))
        prompts = (CheckedPrompt.from_dict(one) if isinstance(one, dict) else one for one in self.prompts)
        object.__setattr__(self, "prompts", tuple(prompts))


@dataclass(frozen=True)
class Kept:
    """Numbers over the answers of one way to ask.

    Attributes
    ----------
    asked, right
        Prompts with an answer, and those that the full model answers right.
    by_plan, by_window
        Of those right answers, the share that the plan gives too, and that all layers streaming give too, with Wilson
        intervals; None where the full model has none right.
    """

    asked: int
    right: int
    by_plan: Estimate | None
    by_window: Estimate | None


@dataclass(frozen=True)
class Findings:
    """Numbers over a check's prompts.

    Attributes
    ----------
    aware, agnostic
        Of the answers with the question in the prompt, and asked of the cut cache.
    nll, kl
        How much the NLL of the passages rises under the plan, and KL(full model || plan) on them, in nats per token;
        None without passages.
    """

    aware: Kept
    agnostic: Kept
    nll: Estimate | None
    kl: Estimate | None


def findings(prompts: Sequence[CheckedPrompt]) -> Findings:
    """The numbers over the prompts so far."""
    read = [one for one in prompts if one.task == PASSAGES]
    return Findings(
        aware=_kept(prompts, "aware"),
        agnostic=_kept(prompts, "agnostic"),
        nll=mean_of([(one.plan.nll or 0.0) - (one.full.nll or 0.0) for one in read]),
        kl=mean_of([one.plan.kl or 0.0 for one in read]),
    )


def _kept(prompts: Sequence[CheckedPrompt], question: Question) -> Kept:
    asked = [one for one in prompts if one.task != PASSAGES and one.question == question]
    right = [one for one in asked if is_right(one.full)]
    return Kept(
        asked=len(asked),
        right=len(right),
        by_plan=proportion(sum(is_right(one.plan) for one in right), len(right)),
        by_window=proportion(sum(is_right(one.streaming) for one in right), len(right)),
    )


def is_right(outcome: Outcome) -> bool:
    """Whether an answer is right, the whole of it."""
    return outcome.score == 1.0


def is_narrow(found: Findings, width: float) -> bool:
    """Whether the intervals of the answers kept are narrower than that, both ways."""
    shares = (found.aware.by_plan, found.agnostic.by_plan)
    return all(share is not None and share.high - share.low < width for share in shares)


def can_do(task: str, prompts: Sequence[CheckedPrompt]) -> bool:
    """Whether the full model has not yet shown that it cannot do a task, which then says nothing of a plan."""
    answers = [is_right(one.full) for one in prompts if one.task == task and one.question == "aware"]
    wrong = answers.count(False)
    return wrong < _TRIES or answers.count(True) > wrong


def left_out(prompts: Sequence[CheckedPrompt]) -> list[str]:
    """The tasks that were tried and given up."""
    return [task for task in NEEDLES if not can_do(task, prompts)]
