"""The chart of KV-cache bytes over the context length, predicted by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import plotly.graph_objects as go

from viz import roles
from viz.chart import Chart, Rule, figure
from viz.units import byte_unit, bytes_text

_EDGE: Final = 1 / 16
"""Of the axis: so near to its beginning the name of a rule has no room on that side."""


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
    nbytes, unit = byte_unit(max(full_bytes))
    lines = [
        _line(roles.FULL, "Full model", contexts, full_bytes, nbytes),
        _line(roles.LAZY, "Plan", contexts, plan_bytes, nbytes),
    ]
    lines[1].update(fill="tonexty", fillcolor="rgba(12,143,126,0.10)")
    rules = [] if num_tokens is None else [Rule(num_tokens, "this prompt")]
    built = context_figure(lines, contexts, max_positions, f"KV cache ({unit})", rules)
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


def _line(role: roles.Role, name: str, contexts: Sequence[int], kv_bytes: Sequence[int], unit: int) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=list(contexts),
        y=[count / unit for count in kv_bytes],
        mode="lines",
        line={"color": role.colour, "width": 2.5, "dash": role.dash},
        customdata=[bytes_text(count) for count in kv_bytes],
        hovertemplate="%{customdata}",
    )


def context_figure(
    lines: Sequence[go.Scatter], contexts: Sequence[int], max_positions: int, y: str, rules: Sequence[Rule] = ()
) -> go.Figure:
    """Lines over the context length, with room for a mark at the longest and a rule at the model's last position."""
    beyond = [Rule(max_positions, "model’s last position")] if max_positions < contexts[-1] else []
    return figure(
        *lines,
        x="Context length (tokens)",
        y=y,
        hovermode="x unified",
        xaxis={"range": [0, contexts[-1] * 1.02], "tickformat": ","},
        yaxis={"rangemode": "tozero", "tickformat": ","},
        rules=[replace(rule, before=rule.place > contexts[-1] * _EDGE) for rule in (*rules, *beyond)],
    )
