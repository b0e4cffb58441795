"""The live panel: lanes that answer one prompt side by side, fed by the backend's event stream or by a saved run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from viz import roles
from viz.components import MODULES_URL, component, no_callback, source

_MODULE: Final = f"{MODULES_URL}/live/panel.js"
_MARKS: Final = {"__A__": "a", "__B__": "b", "__C__": "c", "__D__": "d", "__FULL__": "full", "__LAZY__": "lazy"}


def _css() -> str:
    css = source("live_panel.css")
    for mark, role in _MARKS.items():
        css = css.replace(mark, roles.ROLES[role].colour)
    return css


_MOUNT = component(
    "lighttransfer_live_panel",
    html=source("live_panel.html"),
    css=_css(),
    js=source("module_mount.js"),
)


def live_panel(
    name: str,
    key: str,
    token: str | None = None,
    events: Sequence[dict[str, Any]] | None = None,
    changeable: bool = True,
    on_lane: Callable[[], None] | None = None,
    on_copy: Callable[[], None] | None = None,
) -> None:
    """Show a comparison.

    Parameters
    ----------
    name
        What is shown, where there is no token: another name begins anew.
    token
        The run to follow, from its first event.
    events
        Instead of a run: all events of one that is over.
    changeable
        Whether a click on a layer may begin a lane anew.
    on_lane, on_copy
        Called when a lane was or is to be begun anew (`st.session_state[key].lane` is `{"lane", "layers", "follow",
        "token"}`, the token None where the run is over), and when the visitor wants a copy of a run that others follow.
        The page also runs again when a followed run ends.
    """
    lanes = {lane: roles.ROLES[lane].colour for lane in "abcd"}
    _MOUNT(
        key=key,
        data={
            "name": name,
            "token": token,
            "events": list(events) if events is not None else None,
            "changeable": changeable,
            "colours": {"lanes": lanes, "full": roles.FULL.colour, "lazy": roles.LAZY.colour},
            "module": _MODULE,
        },
        on_ended_change=no_callback,
        on_lane_change=on_lane or no_callback,
        on_copy_change=on_copy or no_callback,
    )
