"""The benchmark's rows in words, and a chart of decode steps, a line for each side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import plotly.graph_objects as go

from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, Spread
from lighttransfer_core.cost.benchmark import Benchmark, Part
from viz import roles
from viz.chart import Chart, figure
from viz.units import bytes_text, count_text, moment_text, rate_text, seconds_text

_OURS = (
    *((role.colour, role.dash, role.symbol) for role in (roles.FULL, roles.LAZY)),
    ("#5C87A6", "dot", "square"),
)
_PEERS = tuple(look for look in roles.SERIES if look[0] not in {own[0] for own in _OURS})
"""Looks by the order of the sides; all layers full and half of them lazy look as everywhere."""


def steps_over_context(rows: Sequence[Row]) -> Chart:
    """Milliseconds of a decode step over the context length, medians with quartiles.

    `rows` are of one precision and batch; sides that could not be measured are left out, and ours come first.
    """
    sides = sides_of(rows)
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


def sides_of(rows: Sequence[Row]) -> list[str]:
    """The sides that were measured, ours first."""
    measured = [row for row in rows if row.seconds is not None]
    return list(dict.fromkeys(row.side for row in sorted(measured, key=lambda row: row.peer)))


def time_text(value: Spread | None) -> str:
    """`12.3 [11.9, 12.8] ms`, or a dash."""
    if value is None:
        return "–"
    unit, scale = ("s", 1.0) if value.median >= 1 else ("ms", 1000.0)
    low, middle, high = (_digits(scale * number) for number in (value.low, value.median, value.high))
    return f"{middle} {unit}" if value.count < 2 else f"{middle} [{low}, {high}] {unit}"


def ratio_text(row: Row, places: int = 2) -> str:
    """`1.24 [1.20, 1.31] times DynamicCache’s speed`, or nothing."""
    return "" if row.ratio is None else f"{_times(row.ratio, places)} {row.ratio_of}"


def bar_text(bar: Bar) -> str:
    """`at most 1.10`, `at least 1.6`, `at most 50 ms`."""
    return f"{'at least' if bar.at_most is None else 'at most'} {_quantity(bar, _limit_of(bar))}"


def found_text(bar: Bar, row: Row) -> str:
    """The number that a bar is about, with a place more where it would read like the bar."""
    if bar.quantity == "ratio":
        is_close = row.ratio is not None and _quantity(bar, row.ratio.median) == _quantity(bar, _limit_of(bar))
        return ratio_text(row, 3 if is_close else 2)
    if bar.quantity == "seconds":
        return time_text(row.seconds)
    return (
        "not measured on this system"
        if row.extra_bytes is None
        else f"{bytes_text(row.extra_bytes)} held beyond what is kept"
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


def columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The rows as a table of texts: of all that a row can say, the columns that some row here fills."""
    table = {name: [cell(row) for row in rows] for name, cell in _COLUMNS.items()}
    one_batch = len({row.batch for row in rows}) < 2
    return {name: cells for name, cells in table.items() if any(cells) and not (one_batch and name == "batch")}


def missing_texts(rows: Sequence[Row]) -> list[str]:
    """A sentence for each side and reason why it was not measured, with the sizes that this is about."""
    absent: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.seconds is None:
            absent.setdefault((row.side, row.note), []).append(row)
    counts = Counter(row.side for row in rows)
    return [f"{side}: {note} ({_sizes(found, counts[side])})" for (side, note), found in absent.items()]


def has_peers(found: Benchmark) -> bool:
    """Whether other people's code was measured beside ours."""
    return any(row.peer and row.ratio is not None for part in found.parts for row in part.rows)


def ahead_texts(found: Benchmark) -> list[str]:
    """Each row in which other people's code was faster than ours, beyond the quartiles of the ratio."""
    return [
        f"{part.name}: {row.side}, {row.dtype}, {row.tokens:,} tokens, batch {row.batch}: {ratio_text(row)}"
        for part, row in found.ahead()
    ]


def made_text(part: Part) -> str:
    """When, where and with what a part was measured."""
    machine = part.machine
    threads = f", {count_text(machine.threads, 'thread')}" if machine.threads else ""
    return (
        f"Made {moment_text(part.made)} in {seconds_text(part.took_s)} on {machine.device}: "
        f"{machine.processor}{threads}, load average {machine.load_average:.1f} before, memory read at "
        f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s; "
        f"torch {machine.torch_version}, transformers {machine.transformers_version}, Python {machine.python_version}, "
        f"this library {machine.version}."
    )


def _sizes(rows: Sequence[Row], all_rows: int) -> str:
    if len(rows) == all_rows:
        return "at every size"
    return "; ".join(f"{row.dtype}, {row.tokens:,} tokens, batch {row.batch}" for row in rows)


def _limit(row: Row) -> str:
    if row.limit_s is None or row.seconds is None:
        return ""
    return f"{seconds_text(row.limit_s)}, {row.limit_s / row.seconds.median:.0%} of that speed"


def _rate(row: Row) -> str:
    rate = row.tokens_per_s
    return "" if rate is None or row.read_bytes is None else rate_text(rate)


def _bytes(count: int | None) -> str:
    return "" if count is None else bytes_text(count)


_COLUMNS: Final[dict[str, Callable[[Row], str]]] = {
    "side": lambda row: row.side,
    "dtype": lambda row: row.dtype,
    "tokens": lambda row: f"{row.tokens:,}",
    "batch": lambda row: f"{row.batch:,}",
    "time": lambda row: time_text(row.seconds),
    "throughput": _rate,
    "ratio": ratio_text,
    "lazy layers": lambda row: "" if row.lazy_layers is None else str(row.lazy_layers),
    "kept": lambda row: _bytes(row.kept_bytes),
    "most held beyond that": lambda row: _bytes(row.extra_bytes),
    "limit by bandwidth": _limit,
    "note": lambda row: row.note,
}


def _limit_of(bar: Bar) -> float:
    return (bar.at_least if bar.at_most is None else bar.at_most) or 0.0


def _quantity(bar: Bar, value: float) -> str:
    return {"ratio": f"{value:.2f}", "seconds": seconds_text(value), "extra_bytes": bytes_text(value)}[bar.quantity]


def _digits(number: float) -> str:
    """Three significant digits, and all before the point."""
    places = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:,.{places}f}"


def _times(value: Spread, places: int = 2) -> str:
    """With a place more where the others are zeros."""
    places = max(places, 2 if value.median >= 0.1 else 3)
    middle, low, high = (f"{number:.{places}f}" for number in (value.median, value.low, value.high))
    return middle if value.count < 2 else f"{middle} [{low}, {high}]"


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
