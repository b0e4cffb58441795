"""The recipe of a view: all choices that a result depends on, as the sidebar has them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from lighttransfer_core.errors import InvalidPlanError
from lighttransfer_core.events import LaneSettings
from lighttransfer_core.layer_sets import ALL, parse_layers
from lighttransfer_core.selection import plan_from_scores
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from lighttransfer_core.types import ConversionPlan, LayerScores, ModelSpec, Rendering, Window
from pages.parts.address import HALF, INVERSE, LAST_RANGE, RANDOM, parse_keep
from pages.parts.prompts import Prompt


@dataclass(frozen=True)
class Recipe:
    """What to run and how to look at it; `plan` is the text of the address."""

    model: str
    prompt: Prompt
    rendering: Rendering
    window: Window
    last: int
    metric: str
    plan: str
    keep: str = ALL

    def prefill_spec(self) -> PrefillSpec:
        kept = parse_keep(self.keep, LAST_RANGE[1])
        return PrefillSpec(
            query_rows=kept.rows,
            query_layers=kept.layers,
            query_host=kept.host,
            dtype=kept.dtype,
            model=self.model,
            prompt=self.prompt.hash,
            rendering=self.rendering,
            window=self.window,
            last=self.last,
            metric=self.metric,
        )

    def compare_spec(self, plan: ConversionPlan, max_new_tokens: int) -> CompareSpec:
        """The full model beside one plan."""
        return CompareSpec(self.prefill_spec(), (LaneSettings(plan),), max_new_tokens)


def resolve_plan(recipe: Recipe, spec: ModelSpec, scores: LayerScores | None) -> ConversionPlan:
    """The plan that the recipe's text names.

    Raises
    ------
    InvalidPlanError
        The text names no plan for this model, or asks for the laziest half where nothing is ranked.
    """
    layers = resolve_layers(recipe.plan, spec, scores)
    return ConversionPlan(lazy_layers=layers, window=recipe.window, model=spec.identity)


def resolve_layers(text: str, spec: ModelSpec, scores: LayerScores | None) -> tuple[int, ...]:
    """The layers that a text names: a list like 3,5-9, or none, all, half, inverse, or random-7 with its seed.

    Raises
    ------
    InvalidPlanError
        As `resolve_plan`.
    """
    wanted = text.strip().lower()
    if wanted == HALF:
        return laziest_half(scores)
    if wanted == INVERSE:
        lazy = laziest_half(scores)
        return tuple(layer for layer in spec.convertible_layers if layer not in lazy)
    name, _, seed = wanted.partition("-")
    if name == RANDOM and (seed or "0").isdecimal() and len(seed) < 10:
        return tuple(random_layers(spec.convertible_layers, half_of(len(spec.convertible_layers)), int(seed or 0)))
    return parse_layers(text, spec.convertible_layers)


def random_layers(layers: tuple[int, ...], count: int, seed: int) -> list[int]:
    """`count` of the layers, the same for the same seed."""
    return sorted(random.Random(seed).sample(layers, count))


def laziest_half(scores: LayerScores | None) -> tuple[int, ...]:
    """The layers that the library's plan converts by default."""
    if scores is None or not scores.informative:
        raise InvalidPlanError(
            "“half” means the laziest half of the layers, and nothing is ranked here. Run a prompt that is longer than "
            "the window, or name the layers."
        )
    return plan_from_scores(scores).lazy_layers


def half_of(layers: int) -> int:
    """How many of so many layers stream where half do: an odd one stays full."""
    return layers - math.floor(layers / 2 + 0.5)
