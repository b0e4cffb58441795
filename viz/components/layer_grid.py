"""The grid of layers, coloured by score, that is also the switchboard of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from viz import roles
from viz.components import component, source

_MOUNT = component(
    "lighttransfer_layer_grid",
    html=source("layer_grid.html"),
    css=source("layer_grid.css").replace("__FULL__", roles.FULL.colour).replace("__LAZY__", roles.LAZY.colour),
    js=source("layer_grid.js"),
)


def grid_props(
    values: Iterable[float] | None,
    num_layers: int,
    lazy: Sequence[int],
    not_convertible: Mapping[int, str],
    label: str,
    readonly: bool,
    toggles: int = 0,
) -> dict[str, Any]:
    """What the grid is told: each layer's score (or none) with its fill and ink in both themes, and how many toggles
    `lazy` knows of."""
    shown = [float(value) for value in values] if values is not None else []
    low, high = (min(shown), max(shown)) if shown else (0.0, 0.0)

    def tint(layer: int, stops: tuple[str, ...]) -> tuple[str, str]:
        fill = roles.shade(shown[layer], low, high, stops) if shown else stops[0]
        return fill, roles.readable_on(fill)

    return {
        "label": label,
        "readonly": readonly,
        "lazy": list(lazy),
        "toggles": toggles,
        "range": [low, high] if shown else None,
        "lightStops": list(roles.SEQUENTIAL_LIGHT),
        "darkStops": list(roles.SEQUENTIAL_DARK),
        "layers": [
            {
                "index": layer,
                "score": shown[layer] if shown else None,
                "reason": not_convertible.get(layer, ""),
                "light": tint(layer, roles.SEQUENTIAL_LIGHT),
                "dark": tint(layer, roles.SEQUENTIAL_DARK),
            }
            for layer in range(num_layers)
        ],
    }


def layer_grid(
    values: Iterable[float] | None,
    num_layers: int,
    lazy: Sequence[int],
    not_convertible: Mapping[int, str],
    label: str,
    key: str,
    on_change: Callable[[list[int]], None] | None = None,
) -> None:
    """Draw the grid; without `on_change` it only shows.

    After a toggle `on_change` is called with the lazy layers, sorted.
    """
    heard = f"{key}_toggles"

    def toggled() -> None:
        # a click that arrives together with a change of page finds the grid's state gone
        grid = st.session_state.get(key)
        if on_change is not None and grid is not None and grid.lazy is not None:
            st.session_state[heard] = int(grid.lazy["toggles"])
            on_change([int(layer) for layer in grid.lazy["layers"]])

    toggles = st.session_state.get(heard, 0)
    props = grid_props(values, num_layers, lazy, not_convertible, label, readonly=on_change is None, toggles=toggles)
    _MOUNT(key=key, data=props, on_lazy_change=toggled)
