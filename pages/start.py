"""Start: what this is, one run of the chosen prompt, and its summary."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.service.answers import Tokenized
from lighttransfer_core.types import ConversionPlan
from pages.parts import errors, frame, prefill, shell, status, view
from pages.parts.results import Summary
from pages.parts.snippets import prefill_snippet
from viz.components.layer_grid import layer_grid
from viz.units import bytes_text, count_text, percent_text, seconds_text

recipe = shell.recipe()

st.title("LightTransfer Explorer")
st.markdown(
    "A long prompt fills a language model’s KV cache, yet many of its layers look almost only at the first few and the "
    "newest tokens. Run a prompt once, see which layers are *lazy* in that way, give them a small streaming cache, and "
    "read what that costs beside the original."
)


def asked() -> None:
    """What Run will do, in one line."""
    found = status.tokenized(recipe)
    tokens = f"{count_text(found.num_tokens, 'token')}, " if isinstance(found, Tokenized) else ""
    question = f" It asks: “{errors.plain(recipe.prompt.question)}”" if recipe.prompt.question else ""
    st.markdown(
        f"**{errors.plain(recipe.prompt.title)}** on **{errors.plain(recipe.model)}**, {tokens}given as "
        f"{recipe.rendering}; a streaming layer keeps {recipe.window.sink:,} + {recipe.window.recent:,} tokens."
        f"{question}"
    )


def numbers(summary: Summary, plan: ConversionPlan | None) -> None:
    """The run in figures."""
    full, plan_bytes = view.kv_now(summary, plan)
    boxes = st.columns(4)
    boxes[0].metric("Prompt, tokens", f"{summary.num_tokens:,}", border=True, height="stretch")
    boxes[1].metric(
        "Prefill, measured",
        seconds_text(summary.prefill_s),
        border=True,
        height="stretch",
        help=f"The model’s own pass, on {summary.spec.device} in {summary.spec.dtype}. Scoring took "
        f"{seconds_text(summary.score_s)} on top, and is not counted in it.{taken_over(summary)}",
    )
    boxes[2].metric(
        "KV cache, full model", bytes_text(full), border=True, height="stretch", help="Keys and values of the prompt."
    )
    boxes[3].metric(
        "KV cache, with the plan",
        bytes_text(plan_bytes) if plan else "–",
        delta=f"{percent_text(1 - plan_bytes / full)} less" if plan and full else None,
        delta_color="off",
        delta_arrow="off",
        border=True,
        height="stretch",
        help="By formula: a lazy layer keeps its window and no more.",
    )


def taken_over(summary: Summary) -> str:
    """That part of the prompt was not computed again, where that is so."""
    if not summary.taken_over:
        return ""
    return (
        f" The first {summary.taken_over:,} tokens were taken over from an earlier prompt that begins alike; the time "
        "is that of the other ones."
    )


def glance(summary: Summary, plan: ConversionPlan | None) -> None:
    """The layers, read-only."""
    st.header("The layers at a glance")
    if not summary.scores.informative:
        view.nothing_to_rank(summary)
    layer_grid(
        summary.scores.values if summary.scores.informative else None,
        summary.spec.num_layers,
        plan.lazy_layers if plan else (),
        summary.spec.not_convertible,
        label="Layers with their laziness score",
        key="glance",
    )


def links() -> None:
    """Where to go from here."""
    texts = {
        "attention": "Every head, from the whole prompt to one token pair.",
        "laziness": "Where each layer’s attention goes, and how the ranking comes about.",
        "convert": "Choose the layers that stream, and see what they save.",
        "compare": "Watch the full model and the plan answer side by side, and change the plan meanwhile.",
        "scale": "What the plan saves at other lengths, batches and memories.",
        "frontier": "Which ranking of the layers holds, over many prompts.",
        "sessions": "Saved runs, replayed without the model.",
    }
    boxes = [*st.columns(4), *st.columns(3)]
    for box, (page, text) in zip(boxes, texts.items(), strict=True):
        with box.container(border=True, height="stretch"):
            st.page_link(f"pages/{page}.py", icon=view.ICONS[page])
            st.markdown(text)


asked()
seen = prefill.look(recipe, unasked=True)
prefill.run_bar(recipe, seen)
if seen.summary is None:
    if not seen.running and not status.too_long(recipe):
        st.markdown(
            "Press **Run** to compute the prompt. Choose another prompt, model or window in the sidebar at any time; "
            "the address of this page keeps the choice."
        )
else:
    prefill.recorded_note(seen.summary.recorded, seen.running)
    chosen = view.plan_or_panel(recipe, seen.summary)
    numbers(seen.summary, chosen)
    glance(seen.summary, chosen)
    links()
view.reading(recipe)
frame.snippet(prefill_snippet(recipe))
