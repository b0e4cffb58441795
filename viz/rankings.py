"""Charts of several rankings of the same layers side by side: over settings and over prompts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from lighttransfer_core.agreement import Agreement, places
from lighttransfer_core.selection import plan_from_scores
from lighttransfer_core.types import ConversionPlan, LayerScores
from viz import roles
from viz.chart import Cell, Chart, bar_marker, figure

_ROW_PX = 16
_NUMBERS_PX = 58


@dataclass(frozen=True)
class Column:
    """One ranking.

    Attributes
    ----------
    label
        What stands below it; lines are parted by `<br>`, and what a visitor wrote must be escaped.
    name
        What hover texts and the table call it.
    scores
        None: nothing is ranked there, and the column stays empty.
    """

    label: str
    name: str
    scores: LayerScores | None


@dataclass(frozen=True)
class Setting:
    """One value of what is varied: its rankings with the question in the prompt and before it, each beside that of the
    sidebar's setting."""

    value: int
    now: bool
    aware: LayerScores | None
    agnostic: LayerScores | None
    aware_agreement: Agreement | None
    agnostic_agreement: Agreement | None


def sensitivity(settings: Sequence[Setting], parameter: str) -> Chart:
    """Layers by rank across the values of one setting, for each value with the question in and out of the prompt."""
    sides = [
        (one, question, scores, agreed)
        for one in settings
        for question, scores, agreed in (
            ("in", one.aware, one.aware_agreement),
            ("out", one.agnostic, one.agnostic_agreement),
        )
    ]
    columns = [
        Column(_small_numbers(question, agreed), f"{one.value:,}, question {question}", scores)
        for one, question, scores, agreed in sides
    ]
    layers = _layers(columns)
    return Chart(
        name="laziness-sensitivity",
        title=f"Rank of each layer by {parameter.lower()}, with the question in and out of the prompt",
        alt=_sensitivity_words(settings, parameter),
        figure=_rank_map(
            columns,
            x="Question in or out of the prompt; ρ with the setting of now; share of the lazy half that stays",
            groups=[
                (2 * place + 0.5, f"<b>{one.value:,}</b> (now)" if one.now else f"{one.value:,}")
                for place, one in enumerate(settings)
            ],
        ),
        columns=(
            parameter,
            "question in or out of the prompt",
            "Spearman’s ρ with the setting of now",
            "layers of the lazy half that stay",
            "lazy half (layers)",
            *(f"rank of layer {layer}" for layer in range(layers)),
        ),
        rows=tuple(
            (one.value, question, *_numbers(agreed), *_places(scores, layers))
            for one, question, scores, agreed in sides
        ),
    )


def over_prompts(columns: Sequence[Column], subject: str) -> Chart:
    """Layers by rank on every prompt; the last column is that of the static plan."""
    layers = _layers(columns)
    laziest = [(one.name, one.scores.ranking()[0]) for one in columns if one.scores is not None]
    return Chart(
        name="laziness-prompts",
        title=f"Rank of each layer on each prompt, {subject}",
        alt=(
            f"Heat map of the ranks of {layers} layers on {len(columns)} prompts and averages. Laziest: "
            + "; ".join(f"layer {layer} on {name}" for name, layer in laziest)
            + "."
        ),
        figure=_rank_map(columns, x="Prompt"),
        columns=("prompt", *(f"rank of layer {layer}" for layer in range(layers))),
        rows=tuple((one.name, *_places(one.scores, layers)) for one in columns),
    )


def lazy_share(counted: Sequence[int], prompts: int, plan: ConversionPlan) -> Chart:
    """How many of the prompts would convert each layer; the layers of the plan are marked."""
    layers = list(range(len(counted)))
    kinds = ((roles.LAZY, "in the plan", True), (roles.FULL, "not in the plan", False))
    bars = [
        go.Bar(
            name=f"{role.label}: {words}",
            x=[layer for layer in layers if (layer in plan.lazy_layers) is inside],
            y=[counted[layer] for layer in layers if (layer in plan.lazy_layers) is inside],
            marker=bar_marker(role),
            hovertemplate=f"layer %{{x}}: lazy on %{{y}} of {prompts} prompts, {words}<extra></extra>",
        )
        for role, words, inside in kinds
    ]
    always = sum(count == prompts for count in counted)
    return Chart(
        name="laziness-votes",
        title="How often each layer is in the lazy half of a prompt",
        alt=(
            f"Bars for {len(layers)} layers: on how many of {prompts} prompts each is in the lazy half. {always} are "
            f"on every prompt, {sum(not count for count in counted)} on none."
        ),
        figure=figure(
            *bars,
            x="Layer, from the input up",
            y="Prompts",
            height=280,
            yaxis={"range": [0, prompts * 1.04], "dtick": max(1, round(prompts / 5)), "tickformat": "d"},
        ),
        columns=("layer", "lazy on (prompts)", "of (prompts)", "in the plan"),
        rows=tuple((layer, counted[layer], prompts, "yes" if layer in plan.lazy_layers else "no") for layer in layers),
    )


def _rank_map(columns: Sequence[Column], x: str, groups: Sequence[tuple[float, str]] = ()) -> go.Figure:
    """A heat map `[layer, column]` of ranks, 1 the laziest, with the lazy half of each column outlined."""
    layers = _layers(columns)
    ranks = np.full((layers, len(columns)), np.nan, dtype=np.float32)
    for place, one in enumerate(columns):
        if one.scores is not None:
            ranks[:, place] = places(one.scores)
    heat = go.Heatmap(
        z=ranks,
        x=list(range(len(columns))),
        y=list(range(layers)),
        customdata=[[html.escape(one.name) for one in columns]] * layers,
        coloraxis="coloraxis",
        xgap=2,
        ygap=1,
        hoverongaps=False,
        hovertemplate="layer %{y}: rank %{z}<br>%{customdata}<extra></extra>",
    )
    top = 128 if groups else 60
    return figure(
        heat,
        _written(ranks),
        x=x,
        y="Layer",
        height=_ROW_PX * layers + top + 16,
        margin={"l": 56, "r": 16, "t": top, "b": 16},
        xaxis={
            "side": "top",
            "tickvals": list(range(len(columns))),
            "ticktext": [one.label for one in columns],
            "tickangle": 0,
            "range": [-0.5, len(columns) - 0.5],
            "title": {"text": x, "standoff": 34 if groups else 8},
        },
        yaxis={"range": [layers - 0.5, -0.5], "showgrid": False, "dtick": 5 if layers > 12 else 1},
        coloraxis={
            "colorscale": roles.colourscale(roles.SEQUENTIAL_LIGHT),
            "reversescale": True,
            "colorbar": {
                "title": {"text": "Rank, 1 is the laziest", "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
            },
        },
        shapes=[shape for place, one in enumerate(columns) for shape in _outlines(one.scores, place)],
        annotations=[_group_name(*group, layers) for group in groups],
    )


def _written(ranks: npt.NDArray[np.float32]) -> go.Scatter:
    """The rank in each cell, in the ink that reads best there; the browser takes `darkInk` where the page is dark."""
    rows, columns = np.nonzero(np.isfinite(ranks))
    shown = ranks[rows, columns].tolist()
    low, high = (min(shown), max(shown)) if shown else (0.0, 0.0)
    light, dark = (
        [roles.readable_on(roles.shade(-rank, -high, -low, stops)) for rank in shown]
        for stops in (roles.SEQUENTIAL_LIGHT, roles.SEQUENTIAL_DARK)
    )
    return go.Scatter(
        x=columns.tolist(),
        y=rows.tolist(),
        text=[f"{rank:g}" for rank in shown],
        mode="text",
        textfont={"color": light},
        meta={"darkInk": dark},
        hoverinfo="skip",
        showlegend=False,
    )


def _outlines(scores: LayerScores | None, place: int) -> list[dict[str, Any]]:
    """A frame around each run of neighbouring layers that are in the lazy half."""
    if scores is None:
        return []
    lazy = plan_from_scores(scores).lazy_layers
    starts = [layer for layer in lazy if layer - 1 not in lazy]
    ends = [layer for layer in lazy if layer + 1 not in lazy]
    line = {"width": 2, "color": roles.INK_LIGHT}
    return [
        {"type": "rect", "x0": place - 0.48, "x1": place + 0.48, "y0": start - 0.5, "y1": end + 0.5, "line": line}
        for start, end in zip(starts, ends, strict=True)
    ]


def _group_name(place: float, text: str, layers: int) -> dict[str, Any]:
    """Above the small numbers of a pair of columns; the distance is a share of the plot, so that it grows with it."""
    above = 1 + _NUMBERS_PX / (_ROW_PX * layers)
    return {"x": place, "y": above, "yref": "paper", "yanchor": "bottom", "text": text, "showarrow": False}


def _layers(columns: Sequence[Column]) -> int:
    return next(len(one.scores.values) for one in columns if one.scores is not None)


def _places(scores: LayerScores | None, layers: int) -> list[Cell]:
    if scores is None:
        return [None] * layers
    return [None if np.isnan(place) else int(place) for place in places(scores)]


def _numbers(agreed: Agreement | None) -> tuple[Cell, ...]:
    return (None, None, None) if agreed is None else (agreed.spearman, agreed.shared, agreed.lazy)


def _small_numbers(question: str, agreed: Agreement | None) -> str:
    """What stands below a column."""
    if agreed is None:
        return f"{question}<br>–<br>–"
    return f"{question}<br>{agreed.spearman:.2f}<br>{agreed.share:.0%}"


def _sensitivity_words(settings: Sequence[Setting], parameter: str) -> str:
    told = [
        f"at {one.value:,} {agreed.spearman:.2f}, {agreed.shared} of {agreed.lazy} stay"
        for one in settings
        if (agreed := one.aware_agreement) is not None and not one.now
    ]
    before = [
        f"at {one.value:,} {agreed.spearman:.2f}" for one in settings if (agreed := one.agnostic_agreement) is not None
    ]
    return (
        f"Heat map of the ranks of the layers by {parameter.lower()}. Spearman’s rank correlation with the setting of "
        f"now and the layers of its lazy half: {'; '.join(told) or 'no other value'}. Before the question: "
        f"{'; '.join(before) or 'not known'}."
    )
