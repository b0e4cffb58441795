"""Charts of saved comparisons laid over each other: how far apart their lanes are, and what each token takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from viz import roles
from viz.chart import Chart, figure
from viz.units import seconds_text

_DASHES = ("solid", "dash")


def kl_over_tokens(series: Mapping[tuple[int, str], Sequence[float]]) -> Chart:
    """KL(A || lane) in nats at each step, by session (0 or 1) and lane."""
    means = {key: sum(values) / len(values) for key, values in series.items() if values}
    return _overlay(
        series,
        name="kl-per-token",
        title="KL divergence per token, on A’s text",
        y="KL(A ‖ lane) (nats)",
        unit="nats",
        scale=1.0,
        start=0,
        summary="; ".join(f"{_label(key)} mean {mean:.4f} nats" for key, mean in means.items()),
        hover="%{y:.3e} nats",
    )


def latency(series: Mapping[tuple[int, str], Sequence[float]]) -> Chart:
    """Inter-token latency in seconds, by session and lane; step 0 comes from the prefill, so the chart begins at 1."""
    return _overlay(
        series,
        name="inter-token-latency",
        title="Inter-token latency, measured",
        y="Latency of the step (ms)",
        unit="s",
        scale=1000.0,
        start=1,
        summary="; ".join(f"{_label(key)} median {seconds_text(median(values[1:]))}" for key, values in series.items()),
        hover="%{y:.2f} ms",
    )


def _overlay(
    series: Mapping[tuple[int, str], Sequence[float]],
    *,
    name: str,
    title: str,
    y: str,
    unit: str,
    scale: float,
    start: int,
    summary: str,
    hover: str,
) -> Chart:
    lines = [_line(key, values, scale, start, hover) for key, values in series.items()]
    built = figure(*lines, x="Generated token", y=y, height=280, hovermode="x unified", yaxis={"rangemode": "tozero"})
    longest = max((len(values) for values in series.values()), default=0)
    rows = [(step, *(_at(values, step) for values in series.values())) for step in range(start, longest)]
    return Chart(
        name=name,
        title=title,
        alt=f"Lines over the tokens. {summary}.",
        figure=built,
        columns=("token", *(f"{_label(key)} ({unit})" for key in series)),
        rows=tuple(rows),
    )


def _line(key: tuple[int, str], values: Sequence[float], scale: float, start: int, hover: str) -> go.Scatter:
    session, lane = key
    role = roles.ROLES[lane]
    return go.Scatter(
        name=_label(key),
        x=list(range(start, len(values))),
        y=[value * scale for value in values[start:]],
        mode="lines+markers",
        line={"color": role.colour, "width": 1.8, "dash": _DASHES[session]},
        marker={"symbol": role.symbol if session == 0 else f"{role.symbol}-open", "size": 5},
        hovertemplate=hover,
    )


def _label(key: tuple[int, str]) -> str:
    return f"{'first' if key[0] == 0 else 'second'}, {key[1].upper()}"


def median(values: Sequence[float]) -> float:
    """Median, and 0.0 of nothing."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _at(values: Sequence[float], step: int) -> float | None:
    return float(values[step]) if step < len(values) else None
