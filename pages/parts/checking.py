"""Checking the plan at hand: prompts whose answers it could lose, beside the full model, until that says enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import streamlit as st

from lighttransfer_core.errors import InvalidPromptError, InvalidWindowError
from lighttransfer_core.frontier.choice import (
    ANSWER_TOKENS,
    CheckResult,
    ChoiceCheck,
    check_positions,
    findings,
    least_length,
)
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.service.specs import CheckSpec
from lighttransfer_core.types import ConversionPlan, ModelSpec
from pages.parts import address, backend, check_words, errors, prefill, runs
from pages.parts.recipe import Recipe
from pages.parts.results import Summary
from viz.components.answer_strip import answer_strip
from viz.components.run_progress import run_progress
from viz.units import seconds_text

_CHECKED: Final = "checked"
_SHORTEST: Final = {"cpu": 1024}
_SHORTEST_ON_ACCELERATOR: Final = 4096
_STEP: Final = 256
_MOST_SECONDS: Final = 3600.0


def section(recipe: Recipe, summary: Summary, plan: ConversionPlan) -> None:
    """The button that checks the plan, the check that runs, or what was found."""
    if not plan.lazy_layers:
        st.markdown("The plan converts no layer, so there is nothing to check.")
        return
    spec = _spec(recipe, summary.spec, plan)
    if spec is None:
        return
    for asked in dict.fromkeys((_latest(spec), spec)):
        found = runs.outcome(asked)
        if found.state == "running":
            _running(asked, found)
            return
        prefill.troubles(found)
        if found.state == "done" and found.result is not None:
            _shown(asked, CheckResult.from_dict(found.result), recipe)
            return
    _earlier(spec)
    st.button(
        "Check my choice",
        key="check",
        on_click=_start,
        args=(spec, recipe),
        disabled=not backend.is_up(),
        help="Asks the full model and the plan the same questions. It takes the place of whatever else of yours runs.",
    )


def _spec(recipe: Recipe, model: ModelSpec, plan: ConversionPlan) -> CheckSpec | None:
    """The check of these choices; None after it was said why there is nothing to check."""
    words, number = st.columns([3, 1], vertical_alignment="bottom")
    fitting = fitting_length(model, plan)
    asked = number.number_input(
        "Tokens of a prompt",
        *address.CHECK_RANGE,
        value=None,
        step=_STEP,
        key="check_tokens",
        bind="query-params",
        placeholder=f"{fitting}",
        help=f"Empty: as many as the window asks for; it needs {least_length(plan.window):,} at least. Longer prompts "
        "take more time, so fewer of them are asked.",
    )
    length = fitting if asked is None else int(asked)
    try:
        check = ChoiceCheck(plan, length, rendering=recipe.rendering)
        check_positions(model, length)
    except InvalidWindowError as error:
        errors.panel(error, "Ask for longer prompts, or choose a smaller window in the sidebar.")
        return None
    except InvalidPromptError as error:
        errors.panel(error, "Ask for shorter prompts.")
        return None
    spec = CheckSpec(recipe.model, check, recipe.prompt.hash, recipe.prefill_spec().dtype)
    check = _latest(spec).check
    words.markdown(
        f"Needles in prompts of {length:,} tokens, each placed where a streaming layer no longer sees it and asked for "
        "twice: in the prompt and, as in a conversation, of the cut cache; and your prompt’s last words as they go on. "
        f"It ends when the 95% intervals of the answers kept are narrower than {check.width * 100:.0f} points, or "
        f"after {check.seconds / 60:.0f} minutes."
    )
    return spec


def fitting_length(model: ModelSpec, plan: ConversionPlan) -> int:
    """Twice the window, so that facts have room outside of it; more where the device is fast; as positions allow."""
    shortest = _SHORTEST.get(model.device, _SHORTEST_ON_ACCELERATOR)
    wanted = max(shortest, -(-2 * plan.window.size // _STEP) * _STEP)
    return min(wanted, model.max_positions - ANSWER_TOKENS)


def _start(spec: CheckSpec, recipe: Recipe) -> None:
    st.session_state[_CHECKED] = spec
    runs.start(spec, recipe.prompt)


def _running(spec: CheckSpec, found: runs.Outcome) -> None:
    run_progress(found.token, "Check: starting", key="check_run", age_s=found.age_s)
    answer_strip([], check_words.TITLES, key="check_live", token=found.token)


def _latest(spec: CheckSpec) -> CheckSpec:
    """The check of the same that this visit asked for last, perhaps with more prompts."""
    asked: CheckSpec = st.session_state.get(_CHECKED, spec)
    alike = replace(asked.check, seconds=spec.check.seconds, width=spec.check.width)
    return asked if replace(asked, check=alike) == spec else spec


def _earlier(spec: CheckSpec) -> None:
    """What was checked before in this visit, which says nothing of another plan."""
    earlier: CheckSpec | None = st.session_state.get(_CHECKED)
    if earlier is None or earlier == _latest(spec):
        return
    found = runs.outcome(earlier)
    plan = earlier.check.plan
    what = errors.plain(
        f"layers {format_layers(plan.lazy_layers)} of {earlier.model}, window {plan.window.sink:,} + "
        f"{plan.window.recent:,}, prompts of {earlier.check.length:,} tokens"
    )
    if found.state == "running":
        st.markdown(f"A check of other choices is running: {what}.")
        _running(earlier, found)
    elif found.state == "done" and found.result is not None:
        done = findings(CheckResult.from_dict(found.result).prompts)
        ways = ((done.aware.by_plan, "in the prompt"), (done.agnostic.by_plan, "later"))
        told = [f"{check_words.interval(kept)} asked {way}" for kept, way in ways if kept is not None]
        said = f" kept of the full model’s right answers {', '.join(told)}" if told else " gave no verdict"
        st.info(
            f"Your last check was of other choices ({what}), and{said}. It says nothing of the present ones.",
            icon=":material/update:",
        )
    elif found.state in ("cancelled", "failed"):
        ended = "was cancelled" if found.state == "cancelled" else "failed"
        st.info(
            f"Your last check was of other choices ({what}), and {ended} before it said anything. {found.reason}",
            icon=":material/cancel:",
        )


def _shown(spec: CheckSpec, result: CheckResult, recipe: Recipe) -> None:
    found = findings(result.prompts)
    st.markdown(check_words.verdict(found))
    answer_strip([one.to_dict() for one in result.prompts], check_words.TITLES, key="check_found")
    st.caption(errors.plain(check_words.asked(result)))
    check = with_more_prompts(result)
    if check is not None:
        st.button(
            f"Check again, for up to {seconds_text(check.seconds)}",
            key="check_more",
            on_click=_start,
            args=(replace(spec, check=check), recipe),
            disabled=not backend.is_up(),
            help="Asks the same prompts anew and then more of them, so that the intervals become narrower.",
        )


def with_more_prompts(result: CheckResult) -> ChoiceCheck | None:
    """The check that goes on where one ended; None where more time brings nothing."""
    check = result.check
    if result.ended == "unable" or check.seconds >= _MOST_SECONDS:
        return None
    width = check.width / 2 if result.ended == "narrow" else check.width
    return replace(check, seconds=min(2 * check.seconds, _MOST_SECONDS), width=width)
