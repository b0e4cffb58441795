"""A chart of several sets of scores over the layers: two models, revisions, prompts or windows on one picture."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from lighttransfer_core.agreement import places
from lighttransfer_core.types import Float64Array, LayerScores
from viz import roles
from viz.chart import Chart, figure

Scale = Literal["rank", "score"]


@dataclass(frozen=True)
class Line:
    """One set of scores, by name."""

    name: str
    scores: LayerScores


def overlay(lines: Sequence[Line], scale: Scale) -> Chart:
    """A line per set: each layer's rank, or its score from the set's lowest to its highest.

    Where the sets have different numbers of layers, layers and ranks are told as shares of each.
    """
    counts = {len(line.scores.values) for line in lines}
    by_share = len(counts) > 1
    values = [_values(line.scores, scale, by_share) for line in lines]
    places_of = [_depths(line.scores, by_share) for line in lines]
    traces = [
        _trace(line.name, x, y, look, scale, by_share)
        for line, x, y, look in zip(lines, places_of, values, roles.SERIES, strict=False)
    ]
    told = [f"{line.name}: layer {line.scores.ranking()[0]}" for line in lines if line.scores.convertible]
    what = "rank" if scale == "rank" else "score"
    return Chart(
        name="laziness-beside",
        title=f"{what.capitalize()} of each layer in {len(lines)} sets of scores",
        alt=(
            f"Lines of the {what} of each layer in {len(lines)} sets of {', '.join(map(str, sorted(counts)))} layers. "
            f"Laziest: {'; '.join(told)}."
        ),
        figure=figure(
            *traces,
            x="Depth of the layer, from the input (0%) to the output" if by_share else "Layer, from the input up",
            y=_axis_title(scale, by_share),
            height=430,
            xaxis={"tickformat": ".0%"} if by_share else {},
            yaxis=_axis(scale, by_share, max(counts)),
        ),
        columns=("scores", "layer", f"score ({'/'.join(dict.fromkeys(line.scores.metric for line in lines))})", "rank"),
        rows=tuple(
            (line.name, layer, float(value), None if np.isnan(place) else int(place))
            for line in lines
            for layer, (value, place) in enumerate(zip(line.scores.values, places(line.scores), strict=True))
        ),
    )


def _trace(
    name: str, x: Float64Array, y: Float64Array, look: tuple[str, str, str], scale: Scale, by_share: bool
) -> go.Scatter:
    colour, dash, symbol = look
    shown = html.escape(name)  # plotly reads names as markup
    at = "at %{x:.0%} of the depth" if by_share else "layer %{x}"
    value = "%{y:.0%}" if scale == "rank" and by_share else "%{y}" if scale == "rank" else "%{y:.3f}"
    return go.Scatter(
        name=shown,
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 7},
        hovertemplate=f"{shown}<br>{at}: {'rank' if scale == 'rank' else 'score'} {value}<extra></extra>",
    )


def _values(scores: LayerScores, scale: Scale, by_share: bool) -> Float64Array:
    """`[L]`, nan for a layer that is not ranked."""
    ranks = places(scores)
    if scale == "rank":
        shares: Float64Array = (ranks - 1) / max(len(scores.convertible) - 1, 1)
        return shares if by_share else ranks
    ranked = np.where(np.isnan(ranks), np.nan, scores.values)
    low, high = np.nanmin(ranked), np.nanmax(ranked)
    spread: Float64Array = (ranked - low) / (high - low) if high > low else ranked - low
    return spread


def _depths(scores: LayerScores, by_share: bool) -> Float64Array:
    layers = np.arange(len(scores.values), dtype=np.float64)
    return layers / max(len(layers) - 1, 1) if by_share else layers


def _axis(scale: Scale, by_share: bool, most: int) -> dict[str, Any]:
    """The laziest on top, whatever is drawn."""
    if scale == "score":
        return {"range": [-0.04, 1.04]}
    return {"range": [1.04, -0.04], "tickformat": ".0%"} if by_share else {"range": [most + 1, 0.2]}


def _axis_title(scale: Scale, by_share: bool) -> str:
    if scale == "score":
        return "Score, from each set’s lowest (0) to its highest (1)"
    return "Rank, as a share of the layers (0%: laziest)" if by_share else "Rank, 1 is the laziest"
