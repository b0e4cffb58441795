"""The chart of KV-cache bytes over the context length, predicted by formula."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from viz import roles
from viz.chart import Chart, figure
from viz.units import bytes_text

MIB = 1024**2


def over_context(
    contexts: Sequence[int],
    full_bytes: Sequence[int],
    plan_bytes: Sequence[int],
    num_tokens: int | None,
    max_positions: int,
    batch: int = 1,
) -> Chart:
    """Predicted KV bytes of the full model and of the plan over the context length (formula, not measured).

    `contexts` are tokens, ascending; the two byte sequences belong to them. `num_tokens` marks this prompt.
    """
    lines = [
        _line(roles.FULL, "Full model", contexts, full_bytes),
        _line(roles.LAZY, "Plan", contexts, plan_bytes),
    ]
    lines[1].update(fill="tonexty", fillcolor="rgba(12,143,126,0.10)")
    built = figure(*lines, x="Context length (tokens)", y="KV cache (MiB)", hovermode="x unified")
    built.update_xaxes(range=[0, contexts[-1]], tickformat=",")
    built.update_yaxes(rangemode="tozero", tickformat=",")
    if num_tokens is not None:
        rule(built, num_tokens, "this prompt")
    if max_positions < contexts[-1]:
        rule(built, max_positions, "model’s last position")
    saved = 1 - plan_bytes[-1] / full_bytes[-1] if full_bytes[-1] else 0.0
    return Chart(
        name="kv-over-context",
        title="Predicted KV cache by context length" + (f", batch {batch}" if batch > 1 else ""),
        alt=(
            f"Two lines over the context length. At {contexts[-1]:,} tokens the full model needs "
            f"{bytes_text(full_bytes[-1])} and the plan {bytes_text(plan_bytes[-1])}, {saved:.0%} less."
        ),
        figure=built,
        columns=("context (tokens)", "full model (bytes)", "plan (bytes)"),
        rows=tuple(zip(contexts, full_bytes, plan_bytes, strict=True)),
    )


def _line(role: roles.Role, name: str, contexts: Sequence[int], kv_bytes: Sequence[int]) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=list(contexts),
        y=[count / MIB for count in kv_bytes],
        mode="lines",
        line={"color": role.colour, "width": 2.5, "dash": role.dash},
        customdata=[bytes_text(count) for count in kv_bytes],
        hovertemplate="%{customdata}",
    )


def rule(built: go.Figure, place: int, text: str) -> None:
    """A dotted line across a chart over the context length, with its name."""
    built.add_vline(x=place, line={"width": 1, "dash": "dot", "color": roles.REST.colour})
    built.add_annotation(
        x=place, y=1, yref="paper", text=text, showarrow=False, textangle=-90, xanchor="right", yanchor="top"
    )
