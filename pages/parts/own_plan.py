"""The plan of the sidebar beside the rankings: exactly its layers, on the prompts of a sweep."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidPlanError
from lighttransfer_core.frontier.orders import StaticOrder
from lighttransfer_core.frontier.results import Sweep, with_set
from lighttransfer_core.frontier.spec import SweepSpec
from lighttransfer_core.frontier.summary import Cell, Point, difference, point, scored
from lighttransfer_core.frontier.verdict import ENOUGH
from lighttransfer_core.layer_sets import format_layers, layers_lazy
from lighttransfer_core.service.specs import SweepRunSpec
from lighttransfer_core.types import ConversionPlan
from pages.parts import errors, evidence, prefill, sweep_runs
from pages.parts.recipe import Recipe, resolve_layers
from viz.frontier import Line, Mark
from viz.units import count_text

NAME: Final = "chosen"
OWN: Final = "Your plan"


class OwnPlan:
    """The sidebar's plan on the prompts of one cell of a sweep."""

    def __init__(self, recipe: Recipe, sweep: Sweep, cell: Cell, found: evidence.Evidence) -> None:
        model = sweep.header.model
        self._recipe = recipe
        self._sweep = sweep
        self._found = found
        summary = prefill.look(recipe).summary
        layers = resolve_layers(recipe.plan, model, summary.scores if summary is not None else None)
        rest = tuple(layer for layer in model.convertible_layers if layer not in layers)
        self.lazy = len(layers)
        self.plan = ConversionPlan(layers, recipe.window)
        self._set = StaticOrder(NAME, recipe.window, (*layers, *rest), "the plan of the sidebar", self.lazy)
        self._shown = cell.window
        self._cell = Cell(cell.task, cell.length, recipe.window, cell.question)
        self._joined = with_set(sweep, found.measured, self._set)
        self.point: Point | None = point(self._joined.results, self._cell, NAME, self.lazy, scored)

    def line(self) -> Line | None:
        """Its dot in the chart, which names its window where the chart is of another one."""
        if self.point is None:
            return None
        model, length = self._sweep.header.model, self._cell.length or 0
        mark = Mark(self.lazy / len(model.convertible_layers), kv_bytes(model, self.plan, length), self.point.value)
        window = self._recipe.window
        return Line(OWN if window == self._shown else f"{OWN}, window {window.sink:,} + {window.recent:,}", [mark])

    def run_spec(self, examples: int) -> SweepRunSpec:
        """The run that tries these layers on the first prompts of the sweep."""
        spec = self._sweep.header.spec
        asked = SweepSpec(
            tasks=spec.tasks,
            lengths=(self._cell.length or spec.lengths[0],),
            windows=(self._recipe.window,),
            shares=(1.0,),
            rankings=(),
            orders=(self._set,),
            questions=(self._cell.question,),
            examples=examples,
            first_seed=spec.first_seed,
            last=spec.last,
            rendering=spec.rendering,
            max_new_tokens=spec.max_new_tokens,
        )
        return SweepRunSpec(self._recipe.model, asked, self._recipe.prefill_spec().dtype)

    def prompts(self) -> int:
        """Of each task, those that the sweep holds."""
        spec = self._sweep.header.spec
        seeds = {one.key.seed for one in self._sweep.results if one.key.length == self._cell.length}
        return max(seeds, default=spec.first_seed) - spec.first_seed + 1

    @property
    def can_be_tried(self) -> bool:
        return evidence.can_go_on(self._sweep)

    def words(self) -> str:
        """What it is and what it keeps."""
        layers = format_layers(self.plan.lazy_layers)
        window = self._recipe.window
        text = (
            f"**{OWN}**: {self.lazy} of {len(self._sweep.header.model.convertible_layers)} layers "
            f"({errors.plain(layers)}), window {window.sink:,} + {window.recent:,}"
        )
        if self.point is None:
            return f"{text}. It was not tried on these prompts yet."
        value, full = self.point.value, self.point.full
        return (
            f"{text}. It scores {value.text} on {count_text(value.count, 'prompt')}, where the "
            f"full model scores {full.text}.{self._against()}"
        )

    def _against(self) -> str:
        """The paired difference from the ranking that goes furthest, where that was tried at as many layers."""
        best = [one.ranking for one in evidence.judged(self._sweep, self._cell)[:1]]
        layers = len(self._sweep.header.model.convertible_layers)
        if not any(layers_lazy(share, layers) == self.lazy for share in self._sweep.header.spec.shares):
            return ""
        gap = difference(self._joined.results, self._cell, NAME, best, self.lazy, scored) if best else None
        if gap is None:
            return ""
        return f" Against `{best[0]}` with as many layers, on the same prompts: {gap.signed_text}."


def of(recipe: Recipe, sweep: Sweep, cell: Cell, found: evidence.Evidence) -> OwnPlan | InvalidPlanError:
    """The plan, or why there is none."""
    try:
        return OwnPlan(recipe, sweep, cell, found)
    except InvalidPlanError as error:
        return error


def section(own: OwnPlan | InvalidPlanError, found: evidence.Evidence) -> SweepRunSpec | None:
    """What is known of the plan, and the run that tries it; returns that run's spec."""
    if isinstance(own, InvalidPlanError):
        st.markdown(errors.plain(f"Your plan is not drawn: {own}"))
        return None
    st.markdown(own.words())
    if not own.lazy:
        return None
    if not own.can_be_tried:
        st.markdown("The questions are those of a file, which only the command line asks.")
        return None
    number, button = st.columns([1, 3], vertical_alignment="bottom")
    most = own.prompts()
    examples = number.number_input(
        "Prompts of each task to try it on", 1, most, min(ENOUGH, most), key=f"own_prompts_{most}"
    )
    spec = own.run_spec(int(examples))
    tried = sweep_runs.held(spec, found)
    with button:
        if tried >= spec.sweep.prompts:
            st.markdown("It was tried on all of these." if examples == most else "Tried; ask for more to go on.")
        else:
            sweep_runs.bar(spec, tried, "Try my plan on these prompts", "own_plan", primary=False)
    return spec
