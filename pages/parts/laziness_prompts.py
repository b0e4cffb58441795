"""Laziness over many prompts: how stable the ranking is, and one static plan for all of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

import streamlit as st

from lighttransfer_core.agreement import Stability, stability
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.selection import aggregate_scores, plan_from_scores, plan_from_votes, votes
from lighttransfer_core.service.answers import PromptScores
from lighttransfer_core.service.specs import ScoreSpec
from lighttransfer_core.types import ConversionPlan, LayerScores
from pages.parts import backend, calibration_prompts, errors, frame, prefill, runs, standing
from pages.parts.laziness_snippets import prompts_snippet
from pages.parts.picking import switch, told_of_missing
from pages.parts.prompts import Prompt
from pages.parts.recipe import Recipe
from viz import rankings
from viz.components.chart import chart
from viz.components.run_progress import run_progress
from viz.rankings import Column
from viz.units import count_text

_SHORT: Final = 14
_NEEDED: Final = 2


def draw(recipe: Recipe) -> None:
    """The view."""
    st.markdown(
        "A plan that is to serve all prompts needs a ranking that holds over prompts. Each is run and scored by itself "
        "with the settings of the sidebar; nothing of it is kept but its scores."
    )
    prompts = _choice()
    spec = _spec(recipe, prompts)
    asked, by = "aware", "mean"
    if spec is None:
        st.info(f"Choose at least {_NEEDED} prompts.", icon=":material/library_add:")
    else:
        found = runs.outcome(spec)
        _run_bar(spec, found, prompts)
        if found.state == "done" and found.result is not None:
            asked, by = _result([PromptScores.from_dict(one) for one in found.result["prompts"]], prompts)
            standing.standing_over_prompts(recipe)
    frame.lesson("calibration", "One plan for all prompts")
    frame.snippet(prompts_snippet(recipe, prompts, by, asked))


def _choice() -> list[Prompt]:
    """The prompts that are chosen, and a place to bring some."""
    names = calibration_prompts.names()
    told_of_missing("set", names)
    picked, brought = st.columns([3, 2], gap="large")
    with picked:
        keys = st.multiselect(
            "Prompts",
            names,
            default=names[:4],
            key="set",
            bind="query-params",
            max_selections=calibration_prompts.MOST_PROMPTS,
            placeholder="Choose prompts",
        )
    with brought:
        st.file_uploader(
            'Add texts: .txt, .md, or .jsonl with a {"text": ...} a line',
            type=["txt", "md", "jsonl"],
            accept_multiple_files=True,
            key="set_files",
            on_change=_take_files,
        )
    for error in calibration_prompts.problems():
        errors.panel(error, "Upload UTF-8 text files, or JSONL with one text a line.")
    return calibration_prompts.chosen([key for key in keys if key in names])


def _take_files() -> None:
    """What was uploaded is chosen at once."""
    added = calibration_prompts.take(st.session_state.set_files)
    chosen = list(dict.fromkeys([*st.session_state.get("set", []), *added]))
    st.session_state.set = chosen[: calibration_prompts.MOST_PROMPTS]


def _spec(recipe: Recipe, prompts: list[Prompt]) -> ScoreSpec | None:
    if len(prompts) < _NEEDED:
        return None
    asked = recipe.prefill_spec()
    return ScoreSpec(
        model=asked.model,
        prompts=tuple(prompt.hash for prompt in prompts),
        rendering=asked.rendering,
        dtype=asked.dtype,
        window=asked.window,
        last=asked.last,
        metric=asked.metric,
    )


def _run_bar(spec: ScoreSpec, found: runs.Outcome, prompts: list[Prompt]) -> None:
    """The button that scores them, or how far that has come."""
    if found.state == "running":
        run_progress(found.token, "Scoring: starting", key="score_run", age_s=found.age_s)
        return
    prefill.troubles(found)
    if found.state != "done":
        st.button(
            f"Score {count_text(len(prompts), 'prompt')}",
            type="primary",
            key="score_prompts",
            on_click=runs.start,
            args=(spec, None, [prompt.text for prompt in prompts if prompt.text is not None]),
            disabled=not backend.is_up(),
            help="One full-attention pass over each prompt, one after the other.",
        )


def _result(found: list[PromptScores], prompts: list[Prompt]) -> tuple[str, str]:
    """Stability, the plan and the charts; where the question is, and how the plan is made."""
    left, right = st.columns(2)
    asked = switch(
        left,
        "The question is",
        "asked",
        ["aware", "agnostic"],
        "aware: in the prompts that are scored. agnostic: the prompts are scored up to their questions.",
    )
    by = switch(
        right,
        "The plan converts",
        "plan_by",
        ["mean", "votes"],
        "mean: the layers with the laziest mean score. votes: those that are in the lazy half of most prompts, as in "
        "the paper’s training variant.",
    )
    ranked, unranked = _ranked(found, prompts, agnostic=asked == "agnostic")
    if unranked:
        st.warning("Not ranked: " + " ".join(map(errors.plain, unranked)), icon=":material/straighten:")
    if len(ranked) < _NEEDED:
        st.info(
            f"At least {_NEEDED} prompts with a ranking are needed. Choose longer prompts, or a smaller window in the "
            "sidebar.",
            icon=":material/straighten:",
        )
        return asked, by
    scores = list(ranked.values())
    counted, mean, steady = votes(scores), aggregate_scores(scores), stability(scores)
    plan = plan_from_votes(scores) if by == "votes" else plan_from_scores(mean)
    other = plan_from_scores(mean) if by == "votes" else plan_from_votes(scores)
    _words(steady, scores)
    columns = [Column(_below(name), name, one) for name, one in ranked.items()]
    subject = f"question-{asked}, {count_text(len(scores), 'prompt')}"
    chart(
        rankings.over_prompts([*columns, Column("<b>mean</b>", "mean of the scores", mean)], subject), "chart_prompts"
    )
    chart(rankings.lazy_share(counted, len(scores), plan), key="chart_votes")
    _plan(plan, other, by)
    return asked, by


def _ranked(
    found: list[PromptScores], prompts: list[Prompt], agnostic: bool
) -> tuple[dict[str, LayerScores], list[str]]:
    """The rankings by prompt, and why others have none."""
    titles = {prompt.hash: prompt.key for prompt in prompts}
    ranked, unranked = {}, []
    for one in found:
        scores = one.before.scores if agnostic else one.aware
        if scores is None:
            unranked.append(f"{titles[one.prompt]}: {one.before.reason}")
        elif not scores.informative:
            unranked.append(f"{titles[one.prompt]}: its {count_text(scores.num_tokens, 'token')} fit the window.")
        else:
            ranked[titles[one.prompt]] = scores.scores()
    return ranked, unranked


def _below(name: str) -> str:
    """A prompt's name under its column; plotly reads it as markup."""
    return html.escape(name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…")


def _words(steady: Stability, scores: Sequence[LayerScores]) -> None:
    shares = [steady.lazy_share[layer] for layer in scores[0].convertible]
    always, never = shares.count(1.0), shares.count(0.0)
    st.markdown(
        f"Over {len(scores)} prompts the rankings agree with a mean rank correlation of **ρ = {steady.mean:.2f}** "
        f"(pairs of prompts: {steady.low:.2f} to {steady.high:.2f}). **{count_text(always, 'layer')}** of "
        f"{len(shares)} are in the lazy half of every prompt and {never} of none; "
        f"{len(shares) - always - never} change sides."
    )


def _plan(plan: ConversionPlan, other: ConversionPlan, by: str) -> None:
    """The static plan, to use here or to take away."""
    moved = set(plan.lazy_layers).difference(other.lazy_layers)
    versus = "the mean" if by == "votes" else "votes"
    words = f"As {versus} would choose." if not moved else f"By {versus} {len(moved)} of them would be others."
    st.markdown(f"**Static plan by {by}**: layers {format_layers(plan.lazy_layers)} stream. {words}")
    use, save = st.columns([1, 1])
    use.button("Use this plan", key="use_static", on_click=_use, args=(plan,), width="stretch")
    save.download_button(
        "Download plan",
        plan.to_json(),
        file_name="plan-static.json",
        mime="application/json",
        key="static_download",
        on_click="ignore",
        width="stretch",
    )


def _use(plan: ConversionPlan) -> None:
    """The plan of the sidebar, and so of every page."""
    st.session_state.plan = format_layers(plan.lazy_layers)
