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
    layers, found = spec.convertible_layers, dict[str, MeasuredOrder]()
    for sweep in evidence.at_hand().of(recipe.model):
        for static in sweep.header.spec.orders:
            known = standing.nearest(recipe, static.name)
            if static.lazy is not None or known is None or static.window != known.window:
                continue
            if sorted(static.order) == sorted(layers):
                share = min(one.share for one in known.by_length.values())
                weakest = min(one.weakest.ratio.mean for one in known.by_length.values())
                found[static.name] = MeasuredOrder(static, layers_lazy(share, len(layers)), weakest, known.text)
    return sorted(found.values(), key=lambda one: (one.lazy, one.weakest), reverse=True)


def rule(orders: list[MeasuredOrder]) -> None:
    """Convert the first layers of such an order."""
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
