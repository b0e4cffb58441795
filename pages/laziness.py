"""Laziness: the layers ranked, where their attention goes, and how far the ranking can be trusted."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.types import LayerScores
from pages.parts import frame, prefill, shell, view
from pages.parts.metrics import metrics
from pages.parts.results import Summary
from pages.parts.snippets import scores_snippet
from viz import laziness
from viz.components.chart import chart

recipe = shell.recipe()
metric = metrics()[recipe.metric]

st.title("Laziness")
st.markdown(
    f"**{metric.title}**: {metric.meaning} Higher is lazier. Window {recipe.window.sink:,} + {recipe.window.recent:,} "
    f"tokens, last {recipe.last} prompt tokens."
)


def verdict(scores: LayerScores) -> None:
    """The two ends of the ranking, in words."""
    ranking = scores.ranking()
    ends = [(layer, scores.values[layer], scores.rest[layer]) for layer in (ranking[0], ranking[-1])]
    st.markdown(
        f"Laziest is **layer {ends[0][0]}** (score {ends[0][1]:.4f}): {ends[0][2]:.1%} of its attention goes to tokens "
        f"that a streaming layer would drop. Least lazy is **layer {ends[1][0]}** (score {ends[1][1]:.4f}), where "
        f"{ends[1][2]:.1%} goes there."
    )


def charts(summary: Summary) -> None:
    """Shares per layer, then the heads and the queries behind them."""
    scores = summary.scores
    order = st.segmented_control(
        "Order of layers", ["rank", "depth"], default="rank", required=True, key="order", bind="query-params"
    )
    chart(laziness.shares(scores, "depth" if order == "depth" else "rank", metric.title), key="chart_shares")
    if scores.per_head is None or scores.per_query is None:
        st.caption("This ranking judges whole layers, so it has no parts by head or by query.")
        return
    heads, queries = st.columns(2, gap="medium")
    with heads:
        chart(laziness.head_map(scores, metric.title), key="chart_heads")
    with queries:
        chart(laziness.query_map(scores, metric.title, summary.tokens_tail), key="chart_queries")


found = prefill.require_summary(recipe)
if found is not None:
    if found.scores.informative:
        verdict(found.scores)
        charts(found)
    else:
        view.nothing_to_rank(found)
st.header("How to read the score")
st.markdown(f"Formula: {metric.formula}. Source: {metric.source}. Cost: {metric.cost}.")
frame.lesson("score", "What the score means, step by step")
frame.lesson("caveats", "Why the score is not the last word")
frame.snippet(scores_snippet(recipe))
