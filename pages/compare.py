"""Compare: the full model and the plan answer the same prompt, side by side, token by token."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.types import ConversionPlan
from pages.parts import address, comparing, errors, frame, prefill, runs, shell, view
from pages.parts.address import format_layers
from pages.parts.defaults import DEFAULT_NEW_TOKENS
from pages.parts.results import Summary
from pages.parts.snippets import compare_snippet

recipe = shell.recipe()

st.title("Compare")
st.markdown(
    "Both lanes start from the same prefill, so their first token is the same by construction. Lane A is the full "
    "model, lane B the plan; each is timed alone."
)


def comparison(summary: Summary, plan: ConversionPlan) -> None:
    """The run of this recipe and plan, in whatever state it is."""
    asked, button = st.columns([1, 3], vertical_alignment="bottom")
    tokens = asked.number_input(
        "New tokens, at most", *address.NEW_TOKENS_RANGE, value=DEFAULT_NEW_TOKENS, key="tokens", bind="query-params"
    )
    spec = recipe.compare_spec(plan, int(tokens))
    seen = runs.outcome(spec)
    with button:
        comparing.run_button(spec, seen, recipe)
    comparing.lanes(spec, seen, summary, recipe)
    frame.snippet(compare_snippet(recipe, plan, int(tokens)))


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
