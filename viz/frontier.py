"""Charts of a sweep: quality against KV bytes as layers are converted, a line per ranking, chance behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lighttransfer_core.frontier.summary import Estimate
from viz import roles
from viz.chart import Chart, figure
from viz.units import bytes_text, count_text, percent_text

LIKELIHOOD = "Minus NLL (nats per token)"
SCORE = "Score"


@dataclass(frozen=True)
class Mark:
    """One ranking at one number of lazy layers: the KV bytes of one prompt by formula, and a score over prompts."""

    share: float
    kv_bytes: int
    score: Estimate


@dataclass(frozen=True)
class Line:
    """A ranking's marks, most bytes first: the full model begins it, all layers streaming ends it."""

    name: str
    marks: Sequence[Mark]


def frontier(
    lines: Sequence[Line],
    chance: Sequence[Sequence[Mark]],
    score_name: str,
    subject: str,
    own: Line | None = None,
    full_bytes: int = 0,
) -> Chart:
    """Score over KV bytes with 95% intervals; `chance` are the lines of random orders, drawn as a band.

    Parameters
    ----------
    own
        One plan beside the rankings, whose line is a single mark, and the bytes of the full model that its own are a
        share of.
    """
    traces = [*_band(chance), *(_trace(line, *look) for line, look in zip(lines, roles.SERIES * 4, strict=False))]
    chosen = [] if own is None else [own]
    traces += [_dot(one, full_bytes) for one in chosen]
    return Chart(
        name="frontier",
        title=f"{score_name} against KV cache, {subject}",
        alt=_words(lines, score_name, own),
        figure=figure(
            *traces,
            x="KV cache of one prompt, as a share of the full model’s",
            y=score_name,
            height=430,
            xaxis={"tickformat": ".0%", "autorange": "reversed"},
            yaxis={"rangemode": "tozero"} if score_name != LIKELIHOOD else {},
        ),
        columns=("ranking", "layers that stream (share)", "KV cache (bytes)", "score", "low", "high", "prompts"),
        rows=tuple(
            (line.name, mark.share, mark.kv_bytes, mark.score.mean, mark.score.low, mark.score.high, mark.score.count)
            for line in [*lines, *chosen]
            for mark in line.marks
        ),
    )


def _trace(line: Line, colour: str, dash: str, symbol: str) -> go.Scatter:
    most = line.marks[0].kv_bytes
    return go.Scatter(
        name=line.name,
        x=[mark.kv_bytes / most for mark in line.marks],
        y=[mark.score.mean for mark in line.marks],
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2.2},
        marker={"symbol": symbol, "size": 8},
        error_y=_intervals(line.marks, colour),
        customdata=[_hover(mark) for mark in line.marks],
        hovertemplate=f"{line.name}<br>%{{customdata}}<extra></extra>",
    )


def _dot(own: Line, full_bytes: int) -> go.Scatter:
    colour, (mark,) = roles.RUN_B.colour, own.marks
    return go.Scatter(
        name=own.name,
        x=[mark.kv_bytes / full_bytes],
        y=[mark.score.mean],
        mode="markers",
        marker={
            "symbol": "star-diamond",
            "size": 15,
            "color": colour,
            "line": {"width": 1.5, "color": roles.INK_LIGHT},
        },
        error_y=_intervals(own.marks, colour),
        customdata=[_hover(mark)],
        hovertemplate=f"{own.name}<br>%{{customdata}}<extra></extra>",
    )


def _intervals(marks: Sequence[Mark], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [mark.score.high - mark.score.mean for mark in marks],
        "arrayminus": [mark.score.mean - mark.score.low for mark in marks],
        "thickness": 1.2,
        "width": 4,
        "color": colour,
    }


def _band(chance: Sequence[Sequence[Mark]]) -> list[go.Scatter]:
    """Lowest and highest mean of the random orders at each share at which any was tried; of a single one its line."""
    if not chance:
        return []
    most = chance[0][0].kv_bytes
    marks = [mark for line in chance for mark in line]
    columns = [[mark for mark in marks if mark.share == share] for share in sorted({mark.share for mark in marks})]
    x = [column[0].kv_bytes / most for column in columns]
    low, high = ([pick(mark.score.mean for mark in column) for column in columns] for pick in (min, max))
    colour = roles.REST.colour
    if len(chance) == 1:
        line = {"color": colour, "width": 2.2, "dash": "dot"}
        return [go.Scatter(x=x, y=low, mode="lines", line=line, hoverinfo="skip", name="One random order")]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [
        go.Scatter(x=x, y=low, **edge),
        go.Scatter(
            x=x,
            y=high,
            **{**edge, "showlegend": True},
            name=f"Random orders ({len(chance)}), lowest to highest mean",
            fill="tonexty",
            fillcolor="rgba(124,130,144,0.28)",
            marker={"color": colour},
        ),
    ]


def _hover(mark: Mark) -> str:
    score = mark.score
    return (
        f"{percent_text(mark.share)} of the layers stream, {bytes_text(mark.kv_bytes)}<br>{score.mean:.3f} "
        f"[{score.low:.3f}, {score.high:.3f}], {count_text(score.count, 'prompt')}"
    )


def _words(lines: Sequence[Line], score_name: str, own: Line | None) -> str:
    told = [
        f"{line.name}: " + ", ".join(f"{mark.score.mean:.2f} at {percent_text(mark.share)}" for mark in line.marks[1:])
        for line in lines
    ]
    full = f"The full model has {lines[0].marks[0].score.mean:.2f}. " if lines else ""
    mine = "" if own is None else f" {own.name}: {own.marks[0].score.mean:.2f} at {percent_text(own.marks[0].share)}."
    return f"{score_name} over the share of layers that stream. {full}{'; '.join(told)}.{mine}"
