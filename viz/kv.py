"""Charts of KV-cache bytes: predicted over context length, and per layer, measured beside formula."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from viz import roles
from viz.chart import Chart, bar_marker, figure
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


def per_layer(
    measured_a: Sequence[int],
    measured_b: Sequence[int],
    formula_a: Sequence[int],
    formula_b: Sequence[int],
    lazy_layers: Sequence[int],
) -> Chart:
    """KV bytes of each layer in both lanes, `[L]` each: measured as bars, the formula as a line across them."""
    layers = range(len(measured_b))
    lazy = set(lazy_layers)
    traces: list[go.Bar | go.Scatter] = [
        go.Bar(
            name="A measured: full model",
            x=list(layers),
            y=[count / MIB for count in measured_a],
            marker={"color": "rgba(0,0,0,0)", "line": {"width": 1.2, "color": roles.RUN_A.colour}},
            customdata=[bytes_text(count) for count in measured_a],
            hovertemplate="A measured: %{customdata}",
        )
    ]
    for role, chosen in ((roles.FULL, [i for i in layers if i not in lazy]), (roles.LAZY, sorted(lazy))):
        traces.append(
            go.Bar(
                name=f"B measured: {role.label.lower()}",
                x=chosen,
                y=[measured_b[layer] / MIB for layer in chosen],
                marker=bar_marker(role),
                customdata=[bytes_text(measured_b[layer]) for layer in chosen],
                hovertemplate="B measured: %{customdata}",
            )
        )
    for name, formula, symbol in (("A formula", formula_a, "line-ew-open"), ("B formula", formula_b, "x-thin-open")):
        traces.append(_formula_marks(name, formula, symbol))
    built = figure(*traces, x="Layer", y="KV cache (MiB)", height=320, barmode="overlay", hovermode="x unified")
    built.update_xaxes(dtick=5 if len(measured_b) > 12 else 1, range=[-0.7, len(measured_b) - 0.3])
    built.update_yaxes(rangemode="tozero")
    total_a, total_b = sum(measured_a), sum(measured_b)
    gap = sum(abs(m - f) for m, f in zip((*measured_a, *measured_b), (*formula_a, *formula_b), strict=True))
    return Chart(
        name="kv-per-layer",
        title="KV cache per layer: measured bars, formula marks",
        alt=(
            f"Bars of the measured KV bytes of {len(measured_b)} layers. Full model {bytes_text(total_a)} in total, "
            f"plan {bytes_text(total_b)}. Measured and formula differ by {bytes_text(gap)} in total."
        ),
        figure=built,
        columns=(
            "layer",
            "kind in B",
            "A measured (bytes)",
            "A formula (bytes)",
            "B measured (bytes)",
            "B formula (bytes)",
        ),
        rows=tuple(
            (i, "lazy" if i in lazy else "full", measured_a[i], formula_a[i], measured_b[i], formula_b[i])
            for i in layers
        ),
    )


def _formula_marks(name: str, formula: Sequence[int], symbol: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=list(range(len(formula))),
        y=[count / MIB for count in formula],
        mode="markers",
        marker={"symbol": symbol, "size": 9, "color": roles.INK_LIGHT, "line": {"width": 1.6}},
        customdata=[bytes_text(count) for count in formula],
        hovertemplate=f"{name}: %{{customdata}}",
    )
