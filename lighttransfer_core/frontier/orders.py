"""Orders of the layers that were made before, the same for every prompt, and the plans that are made from them.

Plain data; knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from annotated_types import Interval, Len

from lighttransfer_core.errors import InvalidInputError, InvalidWindowError
from lighttransfer_core.layer_sets import layers_kept_full
from lighttransfer_core.types import ConversionPlan, JsonRecord, ModelIdentity, Window, is_integer

Name = Annotated[str, Len(1, 100)]
LayerIndex = Annotated[int, Interval(ge=0, le=10_000)]

CALIBRATED: Final = "calibrated_"
"""Before the name of a metric: the order by its mean over calibration prompts."""


@dataclass(frozen=True)
class StaticOrder(JsonRecord):
    """A ranking that was made before, the same for every prompt: laziest first, for one window.

    Attributes
    ----------
    made
        How, in words: the metric and its calibration prompts.
    lazy
        Where the order is one set of layers put in front of all others: how many it has. Only that set is tried.
    model
        Which model it was made for, where that was noted.
    """

    name: Name
    window: Window
    order: Annotated[tuple[LayerIndex, ...], Len(1, 1000)]
    made: Annotated[str, Len(0, 1000)] = ""
    lazy: LayerIndex | None = None
    model: ModelIdentity | None = None

    def __post_init__(self) -> None:
        if isinstance(self.window, dict):
            object.__setattr__(self, "window", Window.from_dict(self.window))
        object.__setattr__(self, "order", tuple(self.order))
        if isinstance(self.model, dict):
            object.__setattr__(self, "model", ModelIdentity.from_dict(self.model))
        if not isinstance(self.window, Window):
            raise InvalidInputError(f"window={self.window!r} of the order {self.name!r} is no Window.")
        layers = [layer for layer in self.order if is_integer(layer) and layer >= 0]
        if not layers or len(set(layers)) != len(self.order):
            raise InvalidInputError(
                f"The order {self.name!r} is not one of layers: give the index of each of them once, the laziest first."
            )

    def to_dict(self) -> dict[str, Any]:
        """Without a model that was not noted: what is asked is told apart by this text, and files go on by it."""
        data = super().to_dict()
        return data if self.model is not None else {name: value for name, value in data.items() if name != "model"}

    @property
    def lazy_set(self) -> tuple[int, ...] | None:
        """The one set of layers that is tried, sorted; None of an order that is tried at every share."""
        return None if self.lazy is None else tuple(sorted(self.order[: self.lazy]))

    def plan(self, keep_full: float = 0.5) -> ConversionPlan:
        """Converts the first layers, so that round-half-up(`keep_full` * n) of the n layers stay full."""
        kept = layers_kept_full(keep_full, len(self.order))
        return ConversionPlan(self.order[: len(self.order) - kept], self.window, self.model)


def read_orders(file: Path) -> list[StaticOrder]:
    """The rankings that `calibrate` wrote."""
    try:
        found = [StaticOrder.from_dict(entry) for entry in json.loads(file.read_text(encoding="utf-8-sig"))]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInputError(f"{file} holds no ranking of `calibrate`: {str(error).removesuffix('.')}.") from error
    if not found:
        raise InvalidInputError(f"{file} holds no ranking of `calibrate`, but an empty list: calibrate again.")
    return found


def order_for(window: Window, orders: Iterable[StaticOrder]) -> StaticOrder:
    """The one that was made for a window. Raises InvalidWindowError where there is none."""
    made = {one.window: one for one in orders}
    if window not in made:
        known = ", ".join(map(window_text, made))
        raise InvalidWindowError(
            f"No order is for the window {window_text(window)}, but for {known}: choose one of these windows, or "
            "calibrate for that one."
        )
    return made[window]


def window_text(window: Window) -> str:
    """As the command line takes it: `4+252`."""
    return f"{window.sink}+{window.recent}"
