"""One comparison on the Compare page: start it, follow it, and the charts once it is over."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lighttransfer_core.service.specs import CompareSpec
from pages.parts import backend, prefill, results, runs
from pages.parts.errors import plain
from pages.parts.recipe import Recipe
from pages.parts.results import Compared, Summary
from viz import comparison as charts
from viz import kv
from viz.components.chart import chart
from viz.components.compare_stream import compare_stream


def run_button(spec: CompareSpec, found: runs.Outcome, recipe: Recipe) -> None:
    """Starts the comparison, unless it runs or is there already."""
    if found.state in ("running", "done"):
        return
    again = found.state in ("failed", "cancelled")
    st.button(
        "Run again" if again else "Run comparison",
        type="primary",
        key="run_compare",
        on_click=runs.start,
        args=(spec, recipe.prompt),
        disabled=not backend.is_up(),
        help="Decodes both lanes from the kept prefill; the prefill itself is computed only where it is gone.",
    )


def lanes(spec: CompareSpec, found: runs.Outcome, summary: Summary, recipe: Recipe) -> None:
    """The lanes as they stream, or finished, or recorded; otherwise what to do."""
    prefill.troubles(found)
    recorded = None if found.state in ("running", "done") else results.recorded_comparison(spec)
    if found.state not in ("running", "done") and recorded is None:
        st.markdown("No comparison of this plan yet. Press **Run comparison**; the text appears as it is decoded.")
        return
    prefill.recorded_note(recorded.recorded if recorded else None)
    compare_stream(
        names=("A: full model", f"B: plan, {len(spec.plan.lazy_layers)} of {summary.spec.num_layers} layers lazy"),
        lazy=spec.plan.lazy_layers,
        max_new_tokens=spec.max_new_tokens,
        key="lanes",
        token=None if recorded else found.token,
        recorded=_recorded_lanes(recorded) if recorded else None,
        final=found.state == "done",
    )
    compared = recorded or (Compared.of(found.result) if found.result else None)
    if compared is not None:
        _answers(compared, recipe)
        _charts(compared, spec)


def _recorded_lanes(recorded: Compared) -> dict[str, Any]:
    return {
        "steps": recorded.steps,
        "kv": {"a": recorded.kv_a, "b": recorded.kv_b},
        "formula": {"a": recorded.kv_formula_a, "b": recorded.kv_formula_b},
    }


def _answers(compared: Compared, recipe: Recipe) -> None:
    if not recipe.prompt.expected:
        return
    said = [
        f"{lane} {'gives' if recipe.prompt.answered(text) else 'does not give'} it"
        for lane, text in (("A", compared.text_a), ("B", compared.text_b))
    ]
    st.markdown(f"Expected answer: **{plain(recipe.prompt.expected[0])}**. {said[0]}; {said[1]}.")


def _charts(compared: Compared, spec: CompareSpec) -> None:
    one, other = st.columns(2, gap="medium")
    with one:
        divergence = compared.comparison.first_divergence
        chart(charts.kl_over_tokens(list(compared.comparison.kl), divergence), key="chart_kl")
    with other:
        chart(charts.latency(compared.latency_a, compared.latency_b), key="chart_latency")
    chart(
        kv.per_layer(compared.kv_a, compared.kv_b, compared.kv_formula_a, compared.kv_formula_b, spec.plan.lazy_layers),
        key="chart_kv_layers",
    )
