"""Charts of one plan at other sizes: bytes, latency and throughput over context length, predicted lines and measured
marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from lighttransfer_core.cost.measured import Latency
from lighttransfer_core.cost.roofline import Throughput
from viz import kv, roles
from viz.chart import Cell, Chart
from viz.units import byte_unit, bytes_text, rate_text, seconds_text

_SIDES = ((roles.FULL, "Full model"), (roles.LAZY, "Plan"))


@dataclass(frozen=True)
class Mark:
    """One measured number at a context length, of the full model or with the plan; `low` and `high` are quartiles."""

    tokens: int
    with_plan: bool
    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_latency(cls, tokens: int, with_plan: bool, latency: Latency) -> Mark:
        return cls(tokens, with_plan, latency.median_s, latency.low_s, latency.high_s)


def memory(
    contexts: Sequence[int],
    full_bytes: Sequence[int],
    plan_bytes: Sequence[int],
    marks: Sequence[Mark],
    max_positions: int,
    batch: int,
) -> Chart:
    """KV bytes of full model and plan by formula, with the bytes counted from tensors where something was measured."""
    chart = kv.over_context(contexts, full_bytes, plan_bytes, None, max_positions, batch)
    for trace in chart.figure.data:
        trace.name += ", formula"
    _add_marks(chart.figure, marks, 1 / byte_unit(max(full_bytes))[0], [bytes_text(mark.value) for mark in marks])
    rows = _rows(contexts, (full_bytes, plan_bytes), marks)
    measured = f" {len(marks)} marks show bytes counted from tensors." if marks else ""
    return replace(
        chart,
        alt=chart.alt + measured,
        columns=(*chart.columns, "full model, measured (bytes)", "plan, measured (bytes)"),
        rows=tuple((*row[:3], *(None if cell is None else int(cell) for cell in row[3:])) for row in rows),
    )


def latency(
    contexts: Sequence[int],
    full_s: Sequence[float],
    plan_s: Sequence[float],
    marks: Sequence[Mark],
    max_positions: int,
    batch: int,
) -> Chart:
    """Seconds of a decode step: predicted as lines, measured medians as marks with their quartiles."""
    lines = [
        _line(role, f"{name}, predicted", contexts, [1000 * s for s in seconds], [seconds_text(s) for s in seconds])
        for (role, name), seconds in zip(_SIDES, (full_s, plan_s), strict=True)
    ]
    built = kv.context_figure(lines, contexts, max_positions, "Latency of a step (ms)")
    _add_marks(built, marks, 1000, [seconds_text(mark.value) for mark in marks])
    ends = f"{seconds_text(full_s[-1])} for the full model and {seconds_text(plan_s[-1])} for the plan"
    measured = f" {len(marks)} marks are measured medians." if marks else " Nothing was measured at this batch size."
    return Chart(
        name="latency-over-context",
        title=f"Latency of a decode step by context length, batch {batch}",
        alt=f"Two predicted lines over the context length. At {contexts[-1]:,} tokens a step takes {ends}.{measured}",
        figure=built,
        columns=(
            "context (tokens)",
            "full model, predicted (s)",
            "plan, predicted (s)",
            "full model, measured (s)",
            "plan, measured (s)",
        ),
        rows=_rows(contexts, (full_s, plan_s), marks),
    )


def throughput(
    contexts: Sequence[int],
    full: Sequence[Throughput | None],
    plan: Sequence[Throughput | None],
    marks: Sequence[Mark],
    max_positions: int,
    kv_nbytes: int,
) -> Chart:
    """Tokens per second of all sequences that fit one KV memory: predicted as lines, measured as marks."""
    lines = [
        _line(role, f"{name}, predicted", contexts, [_rate(one) for one in found], [_batch_text(one) for one in found])
        for (role, name), found in zip(_SIDES, (full, plan), strict=True)
    ]
    built = kv.context_figure(lines, contexts, max_positions, "Throughput (tokens/s)")
    _add_marks(built, marks, 1, [rate_text(mark.value) for mark in marks])
    return Chart(
        name="throughput-over-context",
        title=f"Throughput of the largest batch by context length, KV memory {bytes_text(kv_nbytes)}",
        alt=(
            f"Two predicted lines over the context length. {_last_both(contexts, full, plan)}"
            + (f" {len(marks)} marks are measured." if marks else "")
        ),
        figure=built,
        columns=(
            "context (tokens)",
            "full model, predicted (tokens/s)",
            "plan, predicted (tokens/s)",
            "full model, measured (tokens/s)",
            "plan, measured (tokens/s)",
            "full model, largest batch",
            "plan, largest batch",
        ),
        rows=_throughput_rows(contexts, full, plan, marks),
    )


def _throughput_rows(
    contexts: Sequence[int],
    full: Sequence[Throughput | None],
    plan: Sequence[Throughput | None],
    marks: Sequence[Mark],
) -> tuple[tuple[Cell, ...], ...]:
    sizes = {tokens: (_size(a), _size(b)) for tokens, a, b in zip(contexts, full, plan, strict=True)}
    rows = _rows(contexts, ([_rate(one) for one in full], [_rate(one) for one in plan]), marks)
    return tuple((*row, *sizes.get(int(row[0] or 0), (None, None))) for row in rows)


def _line(
    role: roles.Role, name: str, contexts: Sequence[int], values: Sequence[float | None], texts: Sequence[str]
) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=list(contexts),
        y=list(values),
        mode="lines",
        line={"color": role.colour, "width": 2.2, "dash": role.dash},
        customdata=list(texts),
        hovertemplate="%{customdata}",
    )


def _add_marks(built: go.Figure, marks: Sequence[Mark], unit: float, texts: Sequence[str]) -> None:
    for with_plan, (role, name) in zip((False, True), _SIDES, strict=True):
        own = [(mark, text) for mark, text in zip(marks, texts, strict=True) if mark.with_plan is with_plan]
        if not own:
            continue
        built.add_trace(
            go.Scatter(
                name=f"{name}, measured",
                x=[mark.tokens for mark, _ in own],
                y=[mark.value * unit for mark, _ in own],
                mode="markers",
                marker={"color": role.colour, "symbol": role.symbol, "size": 9, "line": {"width": 0}},
                error_y=_quartiles([mark for mark, _ in own], unit, role.colour),
                customdata=[text for _, text in own],
                hovertemplate="%{customdata} (measured)",
            )
        )


def _quartiles(marks: Sequence[Mark], unit: float, colour: str) -> dict[str, object]:
    """From the lower quartile to the upper; nothing where a mark has none."""
    above = [(mark.value if mark.high is None else mark.high) - mark.value for mark in marks]
    below = [mark.value - (mark.value if mark.low is None else mark.low) for mark in marks]
    return {
        "type": "data",
        "symmetric": False,
        "array": [reach * unit for reach in above],
        "arrayminus": [reach * unit for reach in below],
        "visible": any(above) or any(below),
        "thickness": 1.4,
        "width": 4,
        "color": colour,
    }


def _rows(
    contexts: Sequence[int], lines: Sequence[Sequence[float | None]], marks: Sequence[Mark]
) -> tuple[tuple[Cell, ...], ...]:
    """One row for each context of the lines or of a mark; what is not known there stays empty."""
    predicted = {tokens: pair for tokens, *pair in zip(contexts, *lines, strict=True)}
    measured = {(mark.tokens, mark.with_plan): mark.value for mark in marks}
    return tuple(
        (tokens, *predicted.get(tokens, (None, None)), measured.get((tokens, False)), measured.get((tokens, True)))
        for tokens in sorted({*contexts, *(mark.tokens for mark in marks)})
    )


def _last_both(contexts: Sequence[int], full: Sequence[Throughput | None], plan: Sequence[Throughput | None]) -> str:
    for tokens, one, other in reversed(list(zip(contexts, full, plan, strict=True))):
        if one is not None and other is not None:
            return (
                f"At {tokens:,} tokens the full model gives {rate_text(one.tokens_per_s)} in a batch of {one.batch:,} "
                f"and the plan {rate_text(other.tokens_per_s)} in a batch of {other.batch:,}, "
                f"{other.tokens_per_s / one.tokens_per_s:.2f} times as many."
            )
    return f"At {contexts[0]:,} tokens not one sequence of the full model fits."


def _rate(found: Throughput | None) -> float | None:
    return None if found is None else found.tokens_per_s


def _size(found: Throughput | None) -> int:
    return 0 if found is None else found.batch


def _batch_text(found: Throughput | None) -> str:
    return "no sequence fits" if found is None else f"{rate_text(found.tokens_per_s)}, batch {found.batch:,}"
