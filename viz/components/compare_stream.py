"""Two lanes side by side, fed by the backend's event stream or by a recorded run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from viz import roles
from viz.components import no_callback, source


def _css() -> str:
    css = source("compare_stream.css")
    for mark, role in (("__A__", "a"), ("__B__", "b"), ("__FULL__", "full"), ("__LAZY__", "lazy")):
        css = css.replace(mark, roles.ROLES[role].colour)
    return css


_MOUNT = st.components.v2.component(
    "lighttransfer_compare_stream",
    html=source("compare_stream.html"),
    css=_css(),
    js=source("run_events.js", "compare_charts.js", "compare_stream.js"),
)


def compare_stream(
    names: tuple[str, str],
    lazy: Sequence[int],
    max_new_tokens: int,
    key: str,
    token: str | None = None,
    recorded: Mapping[str, Any] | None = None,
    final: bool = False,
    on_end: Callable[[], None] | None = None,
) -> None:
    """Show a comparison.

    Parameters
    ----------
    names
        What the lanes are called.
    lazy
        Layers that lane b streams.
    token
        The run to follow, from its first event.
    recorded
        Instead of a run: `{"steps": [{"step", "a", "b", "kl"}, ...], "kv": {"a": [L], "b": [L]}, "formula": ...}`.
    final
        The run is known to be over: the live charts give way to the page's own, and `on_end` is not called.
    on_end
        Called once when a followed run ends; `st.session_state[key].ended` is `{"kind": ..., "token": ...}`.
    """
    props: dict[str, Any] = {
        "identity": token or "recorded",
        "token": token,
        "names": list(names),
        "lazy": list(lazy),
        "total": max_new_tokens,
        "final": final or recorded is not None,
    }
    if recorded is not None:
        props |= {name: recorded[name] for name in ("steps", "kv", "formula")}
    _MOUNT(key=key, data=props, on_ended_change=on_end or no_callback)
