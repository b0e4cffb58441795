"""Charts of two lanes that decode one prompt: how far apart they are, and what each token takes."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from viz import roles
from viz.chart import Chart, figure
from viz.units import seconds_text


def kl_over_tokens(kl: Sequence[float], first_divergence: int | None) -> Chart:
    """KL(A || B) in nats at each step, both on lane A's own tokens."""
    steps = list(range(len(kl)))
    bars = go.Bar(
        name="KL(A ‖ B)",
        x=steps,
        y=list(kl),
        marker={"color": roles.RUN_B.colour, "line": {"width": 0}},
        hovertemplate="token %{x}<br>%{y:.3e} nats<extra></extra>",
    )
    built = figure(
        bars,
        x="Generated token",
        y="KL(A ‖ B) (nats)",
        height=280,
        showlegend=False,
        margin={"l": 64, "r": 16, "t": 28, "b": 48},
    )
    built.update_yaxes(rangemode="tozero")
    if first_divergence is not None:
        built.add_vline(x=first_divergence, line={"width": 1.5, "dash": "dot", "color": roles.RUN_B.colour})
        built.add_annotation(
            x=first_divergence,
            y=1,
            yref="paper",
            text="first difference",
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
        )
    mean = sum(kl) / len(kl) if kl else 0.0
    parting = "never part" if first_divergence is None else f"part at token {first_divergence}"
    return Chart(
        name="kl-per-token",
        title="KL divergence per token, on A’s text",
        alt=f"Bars of the KL divergence at {len(kl)} tokens; mean {mean:.4f} nats. The two texts {parting}.",
        figure=built,
        columns=("token", "KL(A || B) (nats)"),
        rows=tuple(zip(steps, map(float, kl), strict=True)),
    )


def latency(latency_a: Sequence[float], latency_b: Sequence[float]) -> Chart:
    """Inter-token latency of both lanes, in seconds, each lane decoded by itself.

    Step 0 comes from the prefill's logits and costs nothing, so the charts begin at step 1.
    """
    lanes = ((roles.RUN_A, latency_a), (roles.RUN_B, latency_b))
    lines = [
        go.Scatter(
            name=role.label,
            x=list(range(1, len(values))),
            y=[value * 1000 for value in values[1:]],
            mode="lines+markers",
            line={"color": role.colour, "width": 1.8, "dash": role.dash},
            marker={"symbol": role.symbol, "size": 5},
            hovertemplate="%{y:.2f} ms",
        )
        for role, values in lanes
    ]
    built = figure(*lines, x="Generated token", y="Latency of the step (ms)", height=280, hovermode="x unified")
    built.update_yaxes(rangemode="tozero")
    medians = [median(values[1:]) for _, values in lanes]
    longest = max(len(latency_a), len(latency_b))
    return Chart(
        name="inter-token-latency",
        title="Inter-token latency, measured",
        alt=f"Two lines over the tokens. Median: A {seconds_text(medians[0])}, B {seconds_text(medians[1])}.",
        figure=built,
        columns=("token", "A (s)", "B (s)"),
        rows=tuple((step, _at(latency_a, step), _at(latency_b, step)) for step in range(1, longest)),
    )


def median(values: Sequence[float]) -> float:
    """Median, and 0.0 of nothing."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _at(values: Sequence[float], step: int) -> float | None:
    return float(values[step]) if step < len(values) else None
