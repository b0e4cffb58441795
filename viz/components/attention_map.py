"""The attention explorer: map, all heads and text of one prompt, drawn from the backend's map routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from viz import roles
from viz.components import MODULES_URL, component, no_callback, source

_MODULE: Final = f"{MODULES_URL}/map/explorer.js"

_MOUNT = component(
    "lighttransfer_attention_map",
    html=source("attention_map.html"),
    css=source("attention_map.css"),
    js=source("module_mount.js"),
)


def looks() -> dict[str, dict[str, Any]]:
    """Colours of the map in both themes."""
    shared = {"evicted": roles.SINK.colour}
    return {
        "light": {
            **shared,
            "name": "light",
            "sequential": list(roles.MAP_LIGHT),
            "diverging": list(roles.DIVERGING_LIGHT),
            "masked": roles.MASKED_LIGHT,
            "grid": "rgba(27,31,39,0.18)",
            "strong": roles.RECENT.colour,
        },
        "dark": {
            **shared,
            "name": "dark",
            "sequential": list(roles.MAP_DARK),
            "diverging": list(roles.DIVERGING_DARK),
            "masked": roles.MASKED_DARK,
            "grid": "rgba(230,233,239,0.18)",
            "strong": roles.RECENT.colour,
        },
    }


def layer_frames(values: Iterable[float] | None, num_layers: int, lazy: Sequence[int]) -> list[dict[str, Any]]:
    """Each layer's frame, shaded by its laziness score, and whether the plan streams it."""
    shown = [float(value) for value in values] if values is not None else [0.0] * num_layers
    low, high = min(shown), max(shown)
    return [
        {
            "light": roles.shade(value, low, high, roles.SEQUENTIAL_LIGHT),
            "dark": roles.shade(value, low, high, roles.SEQUENTIAL_DARK),
            "lazy": layer in lazy,
        }
        for layer, value in enumerate(shown)
    ]


def attention_map(
    token: str,
    name: str,
    window: tuple[int, int],
    layers: list[dict[str, Any]],
    state: str,
    key: str,
    lane: str | None = None,
    on_state: Callable[[], None] | None = None,
    on_gone: Callable[[], None] | None = None,
) -> None:
    """Explore the maps of a prompt, with what a lane decoded after it if `lane` is "a" or "b".

    Parameters
    ----------
    token
        The run, which is done: a prefill, or the comparison that a lane is of.
    name
        The prompt, as titles and file names call it.
    state
        What to show, as the address has it. After a change `on_state` is called with `st.session_state[key].state`
        holding the new text; `on_gone` is called where the backend no longer has the prefill.
    """
    _MOUNT(
        key=key,
        data={
            "token": token,
            "lane": lane,
            "name": name,
            "window": {"sink": window[0], "recent": window[1]},
            "layers": layers,
            "state": state,
            "looks": looks(),
            "module": _MODULE,
        },
        on_state_change=on_state or no_callback,
        on_gone_change=on_gone or no_callback,
    )
