"""Orders of the layers that were measured on the model at hand: one for all prompts, which needs no scores."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import Sweep
from lighttransfer_core.layer_sets import format_layers, layers_lazy
from lighttransfer_core.types import ModelSpec
from pages.parts import errors, evidence, standing
from pages.parts.metrics import order_title
from pages.parts.recipe import Recipe

Family = tuple[StaticOrder, ...]
"""The orders of one name that a sweep has tried, one for each window."""


@dataclass(frozen=True)
class MeasuredOrder:
    """An order, at the measured window that is nearest to the sidebar's.

    Attributes
    ----------
    lazy
        With so many lazy layers every task counts as kept, at every length and for each way to ask where so many were
        tried on enough prompts.
    weakest
        The share of the full model's score that the weakest task keeps there, where it was not kept beyond.
    """

    static: StaticOrder
    known: standing.Known
    lazy: int
    weakest: float

    @classmethod
    def of(cls, static: StaticOrder, known: standing.Known) -> MeasuredOrder:
        every = [*known.by_length.values(), *known.later.values()]
        verdicts = [one for one in every if not one.may_go_further] or every
        share = min(one.share for one in verdicts)
        weakest = min(one.weakest.ratio.mean for one in verdicts if one.share == share)
        return cls(static, known, layers_lazy(share, len(static.order)), weakest)

    @property
    def is_asked_both_ways(self) -> bool:
        return bool(self.known.by_length and self.known.later)

    @property
    def title(self) -> str:
        return order_title(self.static.name)


def measured_orders(recipe: Recipe, spec: ModelSpec) -> list[MeasuredOrder]:
    """Those with enough prompts behind them: of what was asked both ways the one that goes furthest first."""
    tried = dict[Family, list[Sweep]]()
    for sweep in standing.sweeps_of(recipe):
        for family in _families(sweep, spec):
            tried.setdefault(family, []).append(sweep)
    found = []
    for family, sweeps in tried.items():
        known = standing.nearest(recipe, family[0].name, sweeps)
        found += [MeasuredOrder.of(one, known) for one in family if known is not None and one.window == known.window]
    return sorted(found, key=lambda one: (one.lazy > 0 and one.is_asked_both_ways, one.lazy, one.weakest), reverse=True)


def _families(sweep: Sweep, spec: ModelSpec) -> list[Family]:
    layers = sorted(spec.convertible_layers)
    orders = [one for one in sweep.header.spec.orders if one.lazy is None and sorted(one.order) == layers]
    names = dict.fromkeys(one.name for one in orders)
    return [tuple(one for one in orders if one.name == name) for name in names]


def rule(recipe: Recipe, spec: ModelSpec, beside: DeltaGenerator) -> None:
    """Convert the first layers of such an order; what it keeps is told in the wider place `beside`."""
    orders = measured_orders(recipe, spec)
    if not orders:
        st.markdown(
            f"No order for all prompts has been measured on {errors.plain(recipe.model)} yet: `python -m "
            "lighttransfer_core calibrate` makes one, and `sweep --order` measures it."
        )
        return
    by_title = evidence.by_title(orders, lambda order: order.title)
    title = st.selectbox(
        "One order for all prompts",
        list(by_title),
        key="measured_order",
        disabled=len(orders) == 1,
        help="The same order of the layers for every prompt, such as the mean of a score over calibration prompts. The "
        "one with which most layers may stream, for both ways to ask, comes first.",
    )
    one = by_title[str(title)]
    window = one.static.window
    # of its own for each: a slider keeps its value while its key and its ends stay
    key = f"measured_{title}_{window.sink}_{window.recent}_{one.lazy}"
    of = (one.static.order, key)
    st.slider(
        "Layers to convert, in this order", 0, len(one.static.order), one.lazy, key=key, on_change=_apply, args=of
    )
    st.button("Apply", key="apply_order", on_click=_apply, args=of)
    made = f"\n\nMade from: {errors.plain(one.static.made)}." if one.static.made else ""
    beside.caption(f"{one.known.table}{made}")


def _apply(order: tuple[int, ...], key: str) -> None:
    st.session_state.plan = format_layers(order[: st.session_state[key]])
