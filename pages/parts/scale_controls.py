"""The choices of the Scale page, in its address, and what they come to by formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.roofline import DeviceSpeed, largest_batch
from lighttransfer_core.models.catalogue import UNLOADED, catalogue
from pages.parts import address, scaling
from pages.parts.recipe import Recipe
from pages.parts.scaling import Question
from viz.units import bytes_text, count_text

DEFAULT_CONTEXT: Final = 8192
DEFAULT_MEMORY_MIB: Final = 1024
_MIB: Final = 2**20
_GB: Final = 10**9


@dataclass(frozen=True)
class Choice:
    """The page's own choices. `dtype` is what the model is loaded in; `bandwidth` is another device's, in bytes per
    second; 0: the backend's device."""

    model: str
    dtype: str
    context: int
    batch: int
    memory: int
    bandwidth: int

    @property
    def here(self) -> bool:
        return self.bandwidth == 0


def controls(recipe: Recipe) -> Choice:
    """Draw them."""
    boxes = st.columns([3, 2, 2, 2, 2], vertical_alignment="bottom")
    model = boxes[0].selectbox(
        "Model to ask about",
        [address.SIDEBAR, *(entry.name for entry in catalogue())],
        key="ask",
        bind="query-params",
        help="Any model of the catalogue. Bytes need no weights; only measuring loads the model.",
    )
    context = boxes[1].number_input(
        "Longest context (tokens)",
        *address.CONTEXT_RANGE,
        value=DEFAULT_CONTEXT,
        step=1024,
        key="context",
        bind="query-params",
    )
    batch = boxes[2].number_input(
        "Batch of the curves",
        *address.BATCH_RANGE,
        value=1,
        key="batch",
        bind="query-params",
        help="Sequences at once.",
    )
    memory = boxes[3].number_input(
        "KV memory (MiB)",
        *address.MEMORY_RANGE,
        value=DEFAULT_MEMORY_MIB,
        step=256,
        key="memory",
        bind="query-params",
        help="For keys and values alone: the weights come on top.",
    )
    bandwidth = boxes[4].number_input(
        "Other device (GB/s)",
        *address.BANDWIDTH_RANGE,
        value=0,
        step=100,
        key="bandwidth",
        bind="query-params",
        help="0: the backend’s device, measured. Otherwise the memory bandwidth of another one, such as 2,039 for an "
        "A100 with 80 GB: the curves then show the best case, a device that does nothing but read.",
    )
    chosen = recipe.model if model == address.SIDEBAR else str(model)
    # where the sidebar keeps queries in another precision, the whole model is loaded in it
    dtype = recipe.prefill_spec().dtype if chosen == recipe.model else "auto"
    return Choice(chosen, dtype, int(context), int(batch), int(memory) * _MIB, int(bandwidth) * _GB)


def question(recipe: Recipe, choice: Choice) -> Question:
    """The choices with what is known of the model and of the device; raises InvalidPlanError."""
    measurement = scaling.measurements().get((choice.model, choice.dtype)) if choice.here else None
    if choice.here:
        spec, speed = scaling.facts(choice.model, measurement), measurement.speed if measurement else None
    else:
        spec, speed = scaling.entry_of(choice.model).spec(), DeviceSpeed.ideal(choice.bandwidth)
    plan = scaling.plan_by_count(recipe.plan, spec, recipe.window)
    return Question(spec, plan, choice.context, choice.batch, choice.memory, speed, measurement)


def what_is_asked(asked: Question) -> str:
    """Model, precision and plan in a sentence or two."""
    spec, plan = asked.spec, asked.plan
    slides = spec.layer_kinds.count("sliding")
    text = (
        f"{spec.name} in {spec.dtype}, weights {bytes_text(spec.weight_bytes)}. {len(plan.lazy_layers)} of "
        f"{count_text(spec.num_layers, 'layer')} lazy, each keeping {plan.window.sink:,} + {plan.window.recent:,} "
        "tokens; how many layers stream matters here, not which."
    )
    if slides:
        text += f" {count_text(slides, 'layer')} slide by themselves and keep their own window on both sides."
    if spec.device == UNLOADED:
        text += " These are its published sizes, without its weights; loaded here it may run in another precision."
        if slides:
            text += " Which of its layers slide is not known then, but the totals are exact."
    return text


def sizes(asked: Question) -> None:
    """One sequence's bytes and the largest batch, at the longest context."""
    plans = (("full model", None), ("plan", asked.plan))
    found = [
        (
            name,
            kv_bytes(asked.spec, plan, asked.longest),
            largest_batch(asked.spec, plan, asked.longest, asked.kv_nbytes),
        )
        for name, plan in plans
    ]
    boxes = st.columns(4)
    for box, (name, nbytes, _fit) in zip(boxes[:2], found, strict=True):
        box.metric(
            f"One sequence, {name}",
            bytes_text(nbytes),
            border=True,
            help="Keys and values, by formula.",
            height="stretch",
        )
    for box, (name, _nbytes, fit) in zip(boxes[2:], found, strict=True):
        box.metric(
            f"Largest batch, {name}", f"{fit:,}", border=True, help="Whole sequences, by formula.", height="stretch"
        )
    (_, one, full), (_, other, lazy) = found
    st.markdown(
        f"At {asked.longest:,} tokens, {bytes_text(asked.kv_nbytes)} of KV memory holds "
        f"**{count_text(full, 'sequence')}** of the full model and **{lazy:,}** with the plan (formula: {one:,} and "
        f"{other:,} bytes a sequence). With the weights that is "
        f"{bytes_text(asked.kv_nbytes + asked.spec.weight_bytes)}; the space of computing comes on top."
    )
