"""Orders of the layers that were measured on the model at hand: one for all prompts, which needs no scores."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from lighttransfer_core.frontier.spec import CALIBRATED, StaticOrder
from lighttransfer_core.layer_sets import format_layers, layers_lazy
from lighttransfer_core.types import ModelSpec
from pages.parts import errors, evidence, standing
from pages.parts.metrics import metrics
from pages.parts.recipe import Recipe


@dataclass(frozen=True)
class MeasuredOrder:
    """An order, at the measured window that is nearest to the sidebar's.

    Attributes
    ----------
    lazy
        So many lazy layers kept the full model's score on every task and at every length that was tried.
    weakest
        The share of it that was kept where it was least.
    said
        What was measured, in a sentence.
    """

    static: StaticOrder
    lazy: int
    weakest: float
    said: str

    @property
    def title(self) -> str:
        """The metric whose mean it is, where it is one."""
        name = self.static.name.removeprefix(CALIBRATED)
        known = metrics().get(name)
        return known.title if known is not None and name != self.static.name else self.static.name


def measured_orders(recipe: Recipe, spec: ModelSpec) -> list[MeasuredOrder]:
    """Those with enough prompts behind them, the one that goes furthest first."""
    layers, found = spec.convertible_layers, list[MeasuredOrder]()
    sweeps = evidence.at_hand().of(recipe.model)
    orders = [one for sweep in sweeps for one in sweep.header.spec.orders if sorted(one.order) == sorted(layers)]
    for name in dict.fromkeys(one.name for one in orders if one.lazy is None):
        known = standing.nearest(recipe, name, sweeps)
        static = known and next((one for one in orders if (one.name, one.window) == (name, known.window)), None)
        if known is not None and static is not None:
            share = min(one.share for one in known.by_length.values())
            weakest = min(one.weakest.ratio.mean for one in known.by_length.values())
            found.append(MeasuredOrder(static, layers_lazy(share, len(layers)), weakest, known.text))
    return sorted(found, key=lambda one: (one.lazy, one.weakest), reverse=True)


def rule(recipe: Recipe, spec: ModelSpec) -> None:
    """Convert the first layers of such an order."""
    orders = measured_orders(recipe, spec)
    if not orders:
        st.markdown(
            f"No order for all prompts has been measured on {errors.plain(recipe.model)} yet: `python -m "
            "lighttransfer_core calibrate` makes one, and `sweep --order` measures it."
        )
        return
    names = [one.title for one in orders]
    chosen = st.selectbox(
        "One order for all prompts",
        names,
        key="order",
        disabled=len(names) == 1,
        help="The mean of this score over other prompts. It has been measured on prompts that it was not made from.",
    )
    one = orders[names.index(str(chosen))]
    count = len(one.static.order)
    st.slider("Layers to convert, in this order", 0, count, one.lazy, key="order_k", on_change=_apply, args=(one,))
    st.button("Apply", key="apply_order", on_click=_apply, args=(one,))
    st.caption(f"Measured on {one.said} Made from: {errors.plain(one.static.made)}.")


def _apply(one: MeasuredOrder) -> None:
    st.session_state.plan = format_layers(one.static.order[: st.session_state.order_k])
