"""What several pages work out of a recipe and its result."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidPlanError
from lighttransfer_core.service.answers import Tokenized
from lighttransfer_core.types import ConversionPlan, LayerScores
from pages.parts import errors, status
from pages.parts.address import HALF
from pages.parts.recipe import Recipe, resolve_plan
from pages.parts.results import Summary
from viz.units import count_text

ICONS: Final = {
    "start": ":material/play_circle:",
    "attention": ":material/grid_on:",
    "laziness": ":material/stacked_bar_chart:",
    "convert": ":material/grid_view:",
    "compare": ":material/compare_arrows:",
    "scale": ":material/query_stats:",
    "frontier": ":material/stacked_line_chart:",
    "sessions": ":material/folder_open:",
}


def plan_or_none(recipe: Recipe, summary: Summary) -> ConversionPlan | None:
    """The plan, or None where it is the laziest half of an unranked prompt; raises InvalidPlanError otherwise."""
    try:
        return resolve_plan(recipe, summary.spec, summary.scores)
    except InvalidPlanError:
        if recipe.plan.strip().lower() == HALF and not summary.scores.informative:
            return None
        raise


def plan_or_panel(recipe: Recipe, summary: Summary) -> ConversionPlan | None:
    """The plan, or None after the error that stands in its place has been shown."""
    try:
        return plan_or_none(recipe, summary)
    except InvalidPlanError as error:
        errors.panel(error)
        return None


def kv_now(summary: Summary, plan: ConversionPlan | None) -> tuple[int, int]:
    """KV bytes of the prompt in the full model and with the plan, by formula."""
    return kv_bytes(summary.spec, None, summary.num_tokens), kv_bytes(summary.spec, plan, summary.num_tokens)


def nothing_to_rank(summary: Summary) -> None:
    """The state of a prompt that fits the window."""
    scores = summary.scores
    st.info(
        f"There is nothing to rank: the prompt has {count_text(scores.num_tokens, 'token')} and the window keeps "
        f"{scores.window.size:,}, so no layer would lose anything. Choose a smaller window or a longer prompt in the "
        "sidebar.",
        icon=":material/straighten:",
    )


def reading(recipe: Recipe) -> None:
    """The exact text and ids that the model reads, where the backend can tell."""
    found = status.tokenized(recipe)
    if not isinstance(found, Tokenized):
        return
    with st.expander("What the model reads, exactly", icon=":material/article:"):
        st.markdown(
            f"{count_text(found.num_tokens, 'token')}, rendered as {recipe.rendering}. The text holds the template "
            "and its default system prompt; the ids are what the model gets."
        )
        st.text_area("Rendered text", found.rendered, height=260, disabled=False, key=None)
        st.text("ids: " + " ".join(map(str, found.input_ids[:40])) + " … " + " ".join(map(str, found.input_ids[-20:])))


def scores_before(summary: Summary) -> LayerScores | None:
    """The scores of the prompt up to its question, where they rank its layers."""
    found = summary.before.scores
    return found.scores() if found is not None and found.informative else None


def why_not_before(summary: Summary) -> str:
    """Why there is no ranking before the question."""
    before = summary.before
    if before.scores is None:
        return before.reason
    return (
        f"up to its question the prompt has {count_text(before.scores.num_tokens, 'token')}, and the window keeps "
        f"{before.scores.window.size:,}, so nothing can be ranked there."
    )
