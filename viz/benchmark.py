"""The benchmark's rows in words, and a chart of decode steps, a line for each side."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, Spread
from viz import roles
from viz.chart import Chart, figure
from viz.units import bytes_text, seconds_text

_OURS = (
    *((role.colour, role.dash, role.symbol) for role in (roles.FULL, roles.LAZY)),
    ("#5C87A6", "dot", "square"),
)
_PEERS = tuple(look for look in roles.SERIES if look[0] not in {own[0] for own in _OURS})
"""Looks by the order of the sides; all layers full and half of them lazy look as everywhere."""


def steps_over_context(rows: Sequence[Row]) -> Chart:
    """Milliseconds of a decode step over the context length, medians with quartiles.

    `rows` are of one precision and batch; sides that could not be measured are left out.
    """
    sides = list(dict.fromkeys(row.side for row in rows if row.seconds is not None))
    looks = _looks(rows, sides)
    first = rows[0]
    return Chart(
        name="decode-step-by-side",
        title=f"Decode step by context length, {first.dtype}, batch {first.batch}, measured",
        alt=_alt(rows, sides),
        figure=figure(
            *(_line(side, _of(rows, side), *looks[side]) for side in sides),
            x="Context length (tokens)",
            y="Decode step (ms)",
            height=430,
            xaxis={"rangemode": "tozero", "tickformat": ","},
            yaxis={"rangemode": "tozero", "tickformat": ","},
        ),
        columns=("side", "context (tokens)", "step, median (s)", "lower quartile (s)", "upper quartile (s)", "steps"),
        rows=tuple(
            (side, row.tokens, spread.median, spread.low, spread.high, spread.count)
            for side in sides
            for row, spread in _of(rows, side)
        ),
    )


def time_text(value: Spread | None) -> str:
    """`12.3 ms [11.9, 12.8 ms]`, or a dash."""
    if value is None:
        return "–"
    middle = seconds_text(value.median)
    return middle if value.count < 2 else f"{middle} [{seconds_text(value.low)}, {seconds_text(value.high)}]"


def ratio_text(row: Row) -> str:
    """`1.24 [1.20, 1.31] times DynamicCache’s speed`, or nothing."""
    return "" if row.ratio is None else f"{_times(row.ratio)} {row.ratio_of}"


def bar_text(bar: Bar) -> str:
    """`at most 1.10`, `at least 1.6`, `at most 50 ms`."""
    word, limit = ("at least", bar.at_least) if bar.at_most is None else ("at most", bar.at_most)
    return f"{word} {_quantity(bar, limit or 0.0)}"


def found_text(bar: Bar, row: Row) -> str:
    """The number that a bar is about."""
    if bar.quantity == "ratio":
        return ratio_text(row)
    if bar.quantity == "seconds":
        return time_text(row.seconds)
    return (
        "not measured on this system"
        if row.extra_bytes is None
        else f"{bytes_text(row.extra_bytes)} beyond what is kept"
    )


def met_text(bar: Bar, row: Row) -> str:
    """Whether a row keeps to its bar, in a word."""
    return {True: "met", False: "missed", None: "not measured"}[bar.met(row)]


def growth_text(line: Growth) -> str:
    """A line's formula, how well it fits, and what it comes to over the range that was measured."""
    sign = "+" if line.slope >= 0 else "−"
    per = 1000 if line.over.startswith("token") else 1
    of = f"1,000 {line.over.replace('token', 'tokens', 1)}" if per == 1000 else f"{line.over}"
    times = f"{line.times:.2f} times from {line.first:,.0f} to {line.last:,.0f}"
    return (
        f"{seconds_text(line.intercept)} {sign} {seconds_text(abs(line.slope) * per)} per {of}; R² {line.r2:.3f}, "
        f"{line.count} points, {times}"
    )


def _quantity(bar: Bar, value: float) -> str:
    return {"ratio": f"{value:.2f}", "seconds": seconds_text(value), "extra_bytes": bytes_text(value)}[bar.quantity]


def _times(value: Spread) -> str:
    return f"{value.median:.2f}" if value.count < 2 else f"{value.median:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _of(rows: Sequence[Row], side: str) -> list[tuple[Row, Spread]]:
    """A side's measured rows, shortest context first."""
    found = [(row, row.seconds) for row in rows if row.side == side and row.seconds is not None]
    return sorted(found, key=lambda pair: pair[0].tokens)


def _looks(rows: Sequence[Row], sides: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    peers = {row.side for row in rows if row.peer}
    ours = zip((side for side in sides if side not in peers), _OURS * 4, strict=False)
    others = zip((side for side in sides if side in peers), _PEERS * 4, strict=False)
    return dict([*ours, *others])


def _line(side: str, points: Sequence[tuple[Row, Spread]], colour: str, dash: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        name=side,
        x=[row.tokens for row, _ in points],
        y=[1000 * spread.median for _, spread in points],
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2.2},
        marker={"symbol": symbol, "size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [1000 * (spread.high - spread.median) for _, spread in points],
            "arrayminus": [1000 * (spread.median - spread.low) for _, spread in points],
            "thickness": 1.2,
            "width": 4,
            "color": colour,
        },
        customdata=[time_text(spread) for _, spread in points],
        hovertemplate=f"{side}<br>%{{x:,}} tokens: %{{customdata}}<extra></extra>",
    )


def _alt(rows: Sequence[Row], sides: Sequence[str]) -> str:
    ends = [f"{side} {seconds_text(points[-1][1].median)}" for side in sides if (points := _of(rows, side))]
    longest = max((row.tokens for row in rows), default=0)
    return (
        f"A line for each side over the context length. At {longest:,} tokens a decode step takes: {'; '.join(ends)}."
    )
