"""Compare: the full model and up to three plans answer the same prompt, side by side, token by token."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.types import ConversionPlan
from pages.parts import comparing, errors, frame, lanes, prefill, runs, shell, view
from pages.parts.results import Summary
from pages.parts.snippets import compare_snippet

recipe = shell.recipe()

frame.opening(
    "Compare",
    "All lanes start from the same prefill, so their first token is the same by construction. Lane A is the full "
    "model, B the plan; each is timed alone. Click a token to see what each lane could have said, and a layer to "
    "switch it.",
)


def comparison(summary: Summary, plan: ConversionPlan) -> None:
    """The run of this recipe and these lanes, in whatever state it is."""
    spec = lanes.choices(recipe, plan, summary)
    if spec is None:
        return
    lanes.fulfil(spec, recipe)
    seen = runs.outcome(spec)
    comparing.run_button(spec, seen, recipe)
    comparing.panel(spec, seen, recipe)
    frame.snippet(compare_snippet(recipe, spec, lanes.texts(spec)))


found = prefill.look(recipe).summary
if found is None:
    found = prefill.require_summary(recipe)
if found is not None:
    plan = view.plan_or_panel(recipe, found)
    if plan is None and not found.scores.informative:
        view.nothing_to_rank(found)
    elif plan is not None:
        st.markdown(
            f"**{len(plan.lazy_layers)} of {found.spec.num_layers} layers lazy** "
            f"({errors.plain(format_layers(plan.lazy_layers))}), each keeping {plan.window.sink:,} + "
            f"{plan.window.recent:,} tokens of {found.num_tokens:,}."
        )
        comparison(found, plan)
frame.lesson("comparing", "How the lanes are compared")
