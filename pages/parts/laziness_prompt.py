"""Laziness of this prompt: the ranking in words, before and after the question is read, and the charts behind it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from lighttransfer_core.agreement import agreement
from lighttransfer_core.types import LayerScores
from pages.parts import errors, frame, prefill, standing, view
from pages.parts.metrics import metrics
from pages.parts.picking import switch
from pages.parts.recipe import Recipe
from pages.parts.results import Summary
from pages.parts.snippets import scores_snippet
from viz import laziness
from viz.components.chart import chart
from viz.units import count_text


def draw(recipe: Recipe) -> None:
    """The view."""
    found = prefill.require_summary(recipe)
    if found is not None:
        if found.scores.informative:
            _verdict(found.scores)
            _charts(found, metrics()[recipe.metric].title)
        else:
            view.nothing_to_rank(found)
    metric = metrics()[recipe.metric]
    st.header("How to read the score")
    standing.standing(recipe)
    st.markdown(f"Formula: {metric.formula}. Source: {metric.source}. Cost: {metric.cost}.")
    frame.lesson("score", "What the score means, step by step")
    frame.lesson("caveats", "Why the score is not the last word")
    frame.snippet(scores_snippet(recipe))


def _verdict(scores: LayerScores) -> None:
    """The two ends of the ranking, in words."""
    ranking = scores.ranking()
    ends = [(layer, scores.values[layer], scores.rest[layer]) for layer in (ranking[0], ranking[-1])]
    st.markdown(
        f"Laziest is **layer {ends[0][0]}** (score {ends[0][1]:.4f}): {ends[0][2]:.1%} of its attention goes to tokens "
        f"that a streaming layer would drop, on average over heads and queries. Least lazy is **layer {ends[1][0]}** "
        f"(score {ends[1][1]:.4f}), where {ends[1][2]:.1%} goes there.{_not_by_the_mean(scores)}"
    )


def _not_by_the_mean(scores: LayerScores) -> str:
    """That the score is not that share, where it is another number."""
    if np.allclose(scores.values, scores.sink + scores.recent, atol=1e-4):
        return ""
    return " The score is not that average: a layer that attends little to them can still rank among the least lazy."


def _before_question(summary: Summary, scores: LayerScores | None) -> None:
    """How the ranking stands before the question is read, where it is one."""
    if scores is None:
        st.markdown(f"**Before the question** (query-agnostic): {errors.plain(view.why_not_before(summary))}")
        return
    agreed = agreement(summary.scores, scores)
    st.markdown(
        f"The ranking is with the question in the prompt (query-aware). **Before the question** is read "
        f"(query-agnostic: the first {scores.num_tokens:,} of {count_text(summary.num_tokens, 'token')}, the last "
        f"{scores.last} of them as queries) another has a rank correlation of **ρ = {agreed.spearman:.2f}** with it, "
        f"and **{agreed.shared} of its {agreed.lazy}** laziest layers are the same."
    )


def _charts(summary: Summary, title: str) -> None:
    """Shares per layer, with and without the question; then the heads and the queries behind them."""
    scores, before = summary.scores, view.scores_before(summary)
    order = switch(st, "Order of layers", "order", ["rank", "depth"])
    chart(laziness.shares(scores, "depth" if order == "depth" else "rank", title, before), key="chart_shares")
    _before_question(summary, before)
    if scores.per_head is None or scores.per_query is None:
        st.caption("This ranking judges whole layers, so it has no parts by head or by query.")
        return
    if metrics()[scores.metric].kind == "probe":
        st.caption(
            "A layer’s score also counts what the model reads after the prompt, and the worst cases over heads: it can "
            "be far below the layer’s row **per query**, which is of the prompt’s own last tokens."
        )
    heads, queries = st.columns(2, gap="medium")
    with heads:
        chart(laziness.head_map(scores, title), key="chart_heads")
    with queries:
        chart(laziness.query_map(scores, title, summary.tokens_tail), key="chart_queries")
