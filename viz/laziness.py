"""Charts of one `LayerScores`: where the attention of each layer goes, per layer, per head, per query."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import plotly.graph_objects as go

from lighttransfer_core.types import Float64Array, LayerScores
from viz import roles
from viz.chart import Chart, bar_marker, figure

Order = Literal["rank", "depth"]

_SCORE_AXIS: Final[dict[str, Any]] = {
    "yaxis2": {
        "range": [0, 1.02],
        "title": {"text": "Score", "standoff": 8},
        "overlaying": "y",
        "side": "right",
        "showgrid": False,
    },
    "margin": {"l": 64, "r": 56, "t": 12, "b": 48},
}
"""Of marks beside the bars, with room for it."""


def layer_order(scores: LayerScores, order: Order) -> list[int]:
    """All layers, laziest first or from the input up; layers that cannot be ranked stand last."""
    layers = range(len(scores.values))
    if order == "depth":
        return list(layers)
    return sorted(layers, key=lambda layer: (layer in scores.convertible, scores.values[layer], layer), reverse=True)


def shares(
    scores: LayerScores,
    order: Order = "rank",
    metric_title: str | None = None,
    before: LayerScores | None = None,
) -> Chart:
    """Stacked bars of each layer's attention mass (sink, recent, rest), with its score as a diamond.

    `before` are the scores of the prompt up to its question, as crosses.
    """
    layers = layer_order(scores, order)
    names = [str(layer) for layer in layers]
    title = metric_title or scores.metric
    parts = [(roles.SINK, scores.sink), (roles.RECENT, scores.recent)]
    if scores.learned_sink is not None:
        parts.append((roles.LEARNED_SINK, scores.learned_sink))
    parts.append((roles.REST, scores.rest))
    bars = [
        go.Bar(
            name=role.label,
            x=names,
            y=values[layers],
            marker=bar_marker(role),
            hovertemplate=f"layer %{{x}}<br>{role.label}: %{{y:.4f}} of the mass<extra></extra>",
        )
        for role, values in parts
    ]
    # a score that is no share has no place beside shares
    is_share = np.nanmin(scores.values) >= 0 and np.nanmax(scores.values) <= 1
    marks = [_score_marks(names, scores.values[layers], f"Score: {title}", "diamond", "#FFFFFF")] if is_share else []
    if is_share and before is not None:
        marks.append(
            _score_marks(names, before.values[layers], "Score before the question", "x-thin-open", roles.INK_LIGHT)
        )
    built = figure(
        *bars,
        *marks,
        x="Layer, laziest first" if order == "rank" else "Layer, from the input up",
        y="Share of attention mass",
        height=360,
        barmode="stack",
        xaxis={"type": "category"},
        yaxis={"range": [0, 1.02], "tickformat": ".0%"},
        **(_SCORE_AXIS if marks else {}),
    )
    rows = tuple(
        (
            rank,
            layer,
            float(scores.values[layer]),
            *(float(values[layer]) for _, values in parts),
            *([float(before.values[layer])] if before is not None else []),
        )
        for rank, layer in enumerate(layers, start=1)
    )
    first, last = layers[0], layers[-1]
    return Chart(
        name="laziness-layers",
        title=f"Where each layer's attention goes, last {scores.last} prompt tokens",
        alt=(
            f"Stacked bars for {len(layers)} layers: share of attention mass on sink, recent and all other tokens. "
            f"Leftmost layer {first}: score {scores.values[first]:.3f}; rightmost layer {last}: "
            f"score {scores.values[last]:.3f}."
        ),
        figure=built,
        columns=(
            "place",
            "layer",
            f"score ({scores.metric})",
            *(f"{role.label.lower()} (share)" for role, _ in parts),
            *(["score before the question"] if before is not None else []),
        ),
        rows=rows,
    )


def _score_marks(names: list[str], values: Float64Array, name: str, symbol: str, fill: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=names,
        y=values,
        yaxis="y2",
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 8,
            "color": fill,
            "line": {"width": 1.5, "color": roles.INK_LIGHT},
        },
        hovertemplate=f"layer %{{x}}<br>{name}: %{{y:.4f}}<extra></extra>",
    )


def head_map(scores: LayerScores, metric_title: str | None = None) -> Chart:
    """Heat map `[L, H]` of the metric, one cell per query head; for metrics that have such parts."""
    values = scores.per_head
    assert values is not None
    layers, heads = values.shape
    low = np.unravel_index(int(np.argmin(values)), values.shape)
    return Chart(
        name="laziness-heads",
        title="Per head",
        alt=(
            f"Heat map of the score of {layers} layers by {heads} query heads. The least lazy head is head {low[1]} of "
            f"layer {low[0]} with {values[low]:.3f}."
        ),
        figure=_map(
            values,
            x=list(range(heads)),
            x_title="Query head",
            value=metric_title or scores.metric,
            hover="layer %{y}, head %{x}",
        ),
        columns=("layer", *(f"head {head}" for head in range(heads))),
        rows=tuple((layer, *(float(v) for v in values[layer])) for layer in range(layers)),
    )


def query_map(scores: LayerScores, metric_title: str | None = None, tokens: Sequence[str] | None = None) -> Chart:
    """Heat map `[L, last]` of the metric, one cell per query; `tokens` are the texts of those queries.

    For metrics that have such parts.
    """
    values = scores.per_query
    assert values is not None
    layers, last = values.shape
    places = list(range(scores.num_tokens - last, scores.num_tokens))
    spread = values.max(axis=1) - values.min(axis=1)
    swings = int(np.argmax(spread))
    # plotly reads hover text as markup, and these words are the visitor's
    words = [html.escape(token) for token in tokens[-last:]] if tokens is not None and len(tokens) >= last else None
    return Chart(
        name="laziness-queries",
        title=f"Per query, last {last} tokens" if last > 1 else "Per query, last token",
        alt=(
            f"Heat map of the score of {layers} layers by the last {last} prompt tokens. Layer {swings} varies most: "
            f"from {values[swings].min():.3f} to {values[swings].max():.3f}."
        ),
        figure=_map(
            values,
            x=places,
            x_title="Position of the query token",
            value=metric_title or scores.metric,
            hover="layer %{y}, token %{x}" + (" “%{customdata}”" if words else ""),
            custom=[words] * layers if words else None,
        ),
        columns=("layer", *(f"token {place}" for place in places)),
        rows=tuple((layer, *(float(v) for v in values[layer])) for layer in range(layers)),
    )


def _map(
    values: Float64Array,
    x: list[int],
    x_title: str,
    value: str,
    hover: str,
    custom: list[list[str]] | None = None,
) -> go.Figure:
    heat = go.Heatmap(
        z=values.astype(np.float32),
        x=x,
        y=list(range(len(values))),
        customdata=custom,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate=hover + "<br>" + value + ": %{z:.4f}<extra></extra>",
    )
    return figure(
        heat,
        x=x_title,
        y="Layer",
        height=max(320, 90 + 14 * len(values)),
        yaxis={"range": [len(values) - 0.5, -0.5], "showgrid": False, "dtick": 5 if len(values) > 12 else 1},
        coloraxis={
            "colorscale": roles.colourscale(roles.SEQUENTIAL_LIGHT),
            "colorbar": {"title": {"text": value, "side": "right"}, "thickness": 12, "outlinewidth": 0},
        },
    )
