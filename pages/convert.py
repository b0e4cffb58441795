"""Convert: which layers stream, by click or by rule, what that saves, and the plan to take away."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.layer_sets import format_layers
from pages.parts import checking, errors, frame, plans, prefill, shell, view
from pages.parts.snippets import plan_snippet
from viz.components.chart import chart
from viz.components.layer_grid import layer_grid
from viz.units import bytes_text, percent_text

recipe = shell.recipe()

frame.opening(
    "Convert",
    f"A converted layer keeps {recipe.window.sink:,} sink and {recipe.window.recent:,} recent tokens and drops the "
    "rest after the prompt. Toggle layers, or let a rule choose them.",
)

found = prefill.require_summary(recipe)
if found is not None:
    plan = view.plan_or_panel(recipe, found)
    chosen, rules = st.columns([3, 2], gap="large")
    with chosen:
        if not found.scores.informative:
            view.nothing_to_rank(found)
        layer_grid(
            found.scores.values if found.scores.informative else None,
            found.spec.num_layers,
            plan.lazy_layers if plan else (),
            found.spec.not_convertible,
            label="Layers to convert",
            key="layers",
            on_change=plans.take_grid,
        )
    with rules:
        plans.rules(recipe, found, beside=chosen)
    if plan is not None:
        st.header("What it saves")
        full, kept = view.kv_now(found, plan)
        boxes = st.columns(4)
        lazy = plan.lazy_layers
        told = (
            ("Lazy layers", f"{len(lazy)} of {found.spec.num_layers}", format_layers(lazy)),
            ("KV cache, full model", bytes_text(full), "By formula, at this prompt."),
            ("KV cache, plan", bytes_text(kept), "By formula, at this prompt."),
            ("Saved at this prompt", percent_text(1 - kept / full if full else 0.0), None),
        )
        for box, (label, value, meaning) in zip(boxes, told, strict=True):
            box.metric(label, value, border=True, help=meaning, height="stretch")
        longest = st.select_slider(
            "Longest context (tokens)",
            plans.CONTEXTS,
            value=plans.CONTEXTS[2],
            format_func=lambda tokens: f"{tokens:,}",
            key="longest",
        )
        chart(plans.saving_chart(found, plan, int(longest)), key="chart_kv")
        st.markdown(errors.plain(plans.formula(found, plan)))
        st.header("Does it hold?")
        checking.section(recipe, found, plan)
        st.header("Take it away")
        plans.files(plan, found)
        frame.snippet(
            plan_snippet(plan),
            note="Two lines, given `import lighttransfer_core as lt` and a transformers `model` with its `inputs`.",
        )
frame.lesson("streaming", "What a streaming layer keeps, and what it loses")
