"""Making a plan on the Convert page: by clicks, by rules, from a file; and the plan as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidInputError, InvalidPlanError
from lighttransfer_core.layer_sets import ALL, NONE, format_layers
from lighttransfer_core.types import ConversionPlan, LayerScores, ModelSpec
from pages.parts import errors, measured_orders
from pages.parts.recipe import Recipe, random_layers
from pages.parts.results import Summary
from viz import kv
from viz.chart import Chart

CONTEXTS: Final = (8_192, 16_384, 32_768, 65_536, 131_072)
_POINTS: Final = 33
_MOST_NBYTES: Final = 64 * 2**10
_UPLOAD_PROBLEM: Final = "plan_upload_problem"
_UPLOAD_NOTE: Final = "plan_upload_note"


def take_grid(layers: Sequence[int]) -> None:
    """What was clicked in the grid becomes the plan of the address."""
    st.session_state.plan = format_layers(layers)


def rules(recipe: Recipe, summary: Summary, beside: DeltaGenerator) -> None:
    """The rules that choose layers, one at a time; what is wide of one stands in the wider place `beside` it."""
    ranked = ["Laziest", "Threshold"] if summary.scores.informative else []
    rule = st.segmented_control("Choose by rule", [*ranked, "Measured", "Random", "None", "All"], key="rule", wrap=True)
    count = len(summary.spec.convertible_layers)
    if rule == "Laziest":
        st.slider(
            "Laziest layers to convert", 0, count, count // 2, key="k", on_change=_laziest, args=(summary.scores,)
        )
        st.button("Apply", key="apply_k", on_click=_laziest, args=(summary.scores,))
    elif rule == "Threshold":
        _threshold_rule(summary.scores)
    elif rule == "Measured":
        measured_orders.rule(recipe, summary.spec, beside)
    elif rule == "Random":
        st.slider("Random layers to convert", 0, count, count // 2, key="random_k")
        st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", help="The same seed gives the same layers.")
        st.button("Apply", key="apply_random", on_click=_random, args=(summary.spec.convertible_layers,))
    elif rule in ("None", "All"):
        st.button("Apply", key="apply_all", on_click=_set, args=(NONE if rule == "None" else ALL,))
    else:
        st.markdown("Pick a rule to see its settings. A random choice is the control that any ranking should beat.")


def _threshold_rule(scores: LayerScores) -> None:
    values = [float(scores.values[layer]) for layer in scores.convertible]
    low, high = min(values), max(values)
    middle = sorted(values)[len(values) // 2]
    st.number_input(
        f"Convert layers that score at least (they range from {low:.4f} to {high:.4f})",
        value=middle,
        step=0.01,
        format="%.4f",
        key="threshold",
    )
    st.button("Apply", key="apply_threshold", on_click=_threshold, args=(scores,))


def _set(text: str) -> None:
    st.session_state.plan = text


def _laziest(scores: LayerScores) -> None:
    _set(format_layers(scores.ranking()[: st.session_state.k]))


def _threshold(scores: LayerScores) -> None:
    _set(format_layers(at_least(scores, st.session_state.threshold)))


def _random(layers: tuple[int, ...]) -> None:
    _set(format_layers(random_layers(layers, st.session_state.random_k, int(st.session_state.seed))))


def at_least(scores: LayerScores, threshold: float) -> list[int]:
    """The convertible layers that score at least `threshold`."""
    return [layer for layer in scores.convertible if scores.values[layer] >= threshold]


def saving_chart(summary: Summary, plan: ConversionPlan, longest: int) -> Chart:
    """KV bytes of full model and plan up to a context length, by formula; the plan's line bends at the window's size,
    and a rule stands at the prompt's length."""
    even = {longest * point // (_POINTS - 1) for point in range(1, _POINTS)}
    contexts = sorted(even | {tokens for tokens in (plan.window.size, summary.num_tokens) if tokens < longest})
    return kv.over_context(
        contexts,
        [kv_bytes(summary.spec, None, tokens) for tokens in contexts],
        [kv_bytes(summary.spec, plan, tokens) for tokens in contexts],
        summary.num_tokens,
        summary.spec.max_positions,
    )


def formula(summary: Summary, plan: ConversionPlan) -> str:
    """The formula of the chart with this model's numbers."""
    spec, lazy, size = summary.spec, len(plan.lazy_layers), plan.window.size
    return (
        f"Formula, not measured: bytes(T) = c · ({spec.num_layers - lazy} · T + {lazy} · min(T, {size})), where "
        f"c = 2 · {spec.num_kv_heads} KV heads · {spec.head_dim} numbers · {spec.dtype_bytes} bytes "
        f"= {spec.kv_bytes_per_token_per_layer:,} bytes per token and layer ({spec.dtype})."
    )


def files(plan: ConversionPlan, summary: Summary) -> None:
    """Download and upload of the plan."""
    down, up = st.columns([1, 2], gap="large", vertical_alignment="bottom")
    down.download_button(
        "Download plan",
        plan.to_json(),
        file_name=f"plan-{summary.spec.name.replace('/', '-')}.json",
        mime="application/json",
        key="plan_download",
        on_click="ignore",
        width="stretch",
    )
    up.file_uploader(
        "Upload a plan (.json)",
        type=["json"],
        max_upload_size=1,
        key="plan_file",
        on_change=_take_upload,
        args=(summary.spec,),
    )
    if _UPLOAD_PROBLEM in st.session_state:
        errors.panel(st.session_state[_UPLOAD_PROBLEM], "Upload another file; the plan above is as it was.")
    elif _UPLOAD_NOTE in st.session_state:
        st.info(st.session_state[_UPLOAD_NOTE], icon=":material/upload_file:")


def _take_upload(spec: ModelSpec) -> None:
    for name in (_UPLOAD_PROBLEM, _UPLOAD_NOTE):
        st.session_state.pop(name, None)
    upload = st.session_state.plan_file
    if upload is None:
        return
    try:
        plan = read_plan(upload.getvalue(), spec)
    except InvalidInputError as error:
        st.session_state[_UPLOAD_PROBLEM] = error
        return
    st.session_state.plan = format_layers(plan.lazy_layers)
    st.session_state.sink, st.session_state.recent = plan.window.sink, plan.window.recent
    st.session_state[_UPLOAD_NOTE] = f"Plan taken over: layers {format_layers(plan.lazy_layers)}, with its window."


def read_plan(data: bytes, spec: ModelSpec) -> ConversionPlan:
    """An uploaded plan; raises InvalidPlanError or InvalidWindowError where it is none, or none for this model."""
    if len(data) > _MOST_NBYTES:
        raise InvalidPlanError(
            f"The file has {len(data):,} bytes, and a plan has at most {_MOST_NBYTES:,}. Upload a plan that this "
            "page or the library has saved."
        )
    try:
        plan = ConversionPlan.from_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidPlanError(
            "The file is not text. Upload a plan that this page or the library has saved."
        ) from error
    if plan.model is not None and plan.model.shape != spec.identity.shape:
        raise InvalidPlanError(
            f"The plan was made for {plan.model.name}, whose layers or heads differ from those of {spec.name}. Choose "
            "that model in the sidebar, or upload a plan that was made for this one."
        )
    refused = sorted(set(plan.lazy_layers).difference(spec.convertible_layers))
    if refused:
        raise InvalidPlanError(
            f"The plan converts layers {format_layers(refused)}, which this model does not have or cannot convert. "
            "Upload a plan that was made for it."
        )
    return plan
