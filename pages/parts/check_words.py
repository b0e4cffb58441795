"""What a check of a plan found, in words with intervals."""

from __future__ import annotations

from typing import Final

from lighttransfer_core.frontier.choice import NEEDLES, PASSAGES, CheckResult, Findings, Kept, left_out
from lighttransfer_core.frontier.summary import Estimate
from lighttransfer_core.frontier.verdict import KEPT
from lighttransfer_core.tasks import task_info
from lighttransfer_core.tasks.continuation import PASSAGES as PASSAGES_INFO
from viz.units import count_text

TITLES: Final = {**{name: task_info(name).title for name in NEEDLES}, PASSAGES: PASSAGES_INFO.title}
_ENOUGH_PASSAGES: Final = 5


def verdict(found: Findings) -> str:
    """Whether the plan holds, in words, with intervals: for each way to ask, then for passages."""
    said = [_kept(found.aware, "With the question in the prompt"), _kept(found.agnostic, "Asked of the cut cache")]
    if not any(said):
        asked = count_text(found.aware.asked, "question")
        said = [
            f"The full model answers none of {asked} right, so answers say nothing of the plan. Ask for shorter "
            "prompts, or choose another model."
        ]
    return "\n\n".join(text for text in (*said, _read(found)) if text)


def _kept(found: Kept, way: str) -> str:
    """What is kept of the answers to one way of asking; nothing where the full model has none right."""
    if found.by_plan is None or found.by_window is None:
        return ""
    kept = round(found.by_plan.mean * found.by_plan.count)
    return (
        f"{way} **the plan keeps {kept:,} of the {count_text(found.right, 'answer')}** that the full model gives right "
        f"on {count_text(found.asked, 'prompt')}: {interval(found.by_plan)}. All layers streaming keep "
        f"{interval(found.by_window)}. {_judged(found.by_plan)}"
    )


def _judged(kept: Estimate) -> str:
    if kept.low >= KEPT:
        return f"With {KEPT:.0%} as the bar, **it holds**: the whole interval is above."
    if kept.high < KEPT:
        return f"With {KEPT:.0%} as the bar, **it does not hold**: the whole interval is below."
    return f"With {KEPT:.0%} as the bar, these prompts **do not tell**: the interval has it inside."


def _read(found: Findings) -> str:
    if found.nll is None or found.kl is None:
        return ""
    few = "" if found.nll.count >= _ENOUGH_PASSAGES else ", too few passages to be relied on"
    return (
        f"On {count_text(found.nll.count, 'passage')} of your prompt it changes the negative log-likelihood by "
        f"{_signed(found.nll)} nats per token, and diverges by a KL of {found.kl.mean:.3f} nats per token{few}."
    )


def interval(one: Estimate) -> str:
    """A share in per cent."""
    return f"{one.mean:.0%} [{one.low:.0%}, {one.high:.0%}]"


def _signed(one: Estimate) -> str:
    """With its interval, where there is more than one to resample."""
    if one.count < 2:
        return f"{one.mean:+.3f}"
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def asked(result: CheckResult) -> str:
    """What was asked, what was left out, and why it ended."""
    check = result.check
    ends = {
        "narrow": f"both intervals became narrower than {check.width * 100:.0f} points",
        "time": f"a further prompt would have ended after {check.seconds:.0f} s",
        "unable": "the full model could answer none of the questions",
    }
    prompts = {(one.task, one.seed) for one in result.prompts}
    text = (
        f"{count_text(len(prompts), 'prompt')} of {check.length:,} tokens in {result.seconds:.0f} s; it ended "
        f"because {ends[result.ended]}. Interval of answers: Wilson, 95%, over the prompts that the full model "
        "answers right; of passages: resampled passages. Window "
        f"{check.plan.window.sink:,} + {check.plan.window.recent:,}, {check.rendering} rendering, seeds from "
        f"{check.first_seed:,}."
    )
    if not any(one.task == PASSAGES for one in result.prompts) and (len(prompts) > 4 or result.ended == "unable"):
        text += " Your prompt is shorter than these, so none of its passages was read."
    if given_up := left_out(result.prompts):
        names = ", ".join(TITLES[name] for name in given_up)
        text += f" Given up, since the full model was wrong there at least as often as right: {names}."
    return text
