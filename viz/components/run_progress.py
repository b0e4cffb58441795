"""Progress of a backend run, straight from its event stream: no script rerun until it ends."""

from __future__ import annotations

from collections.abc import Callable

from viz.components import MODULES_URL, component, no_callback, source

_MOUNT = component(
    "lighttransfer_run_progress",
    html=source("run_progress.html"),
    css=source("run_progress.css"),
    js=source("run_progress.js"),
)


def run_progress(
    token: str | None,
    label: str,
    key: str,
    cancellable: bool = True,
    on_end: Callable[[], None] | None = None,
    news: str = "",
    age_s: float = 0.0,
) -> None:
    """Show a run until it ends, or, with no token, wait for the backend to answer; then the page runs again.

    With `news` the page runs again after events of that kind too, though not more often than every few seconds.
    `age_s` is how long ago the run was asked for.

    `on_end` is called before that rerun; `st.session_state[key].ended` is then `{"kind": ..., "token": ...}`, where
    kind is "done", "failed", "cancelled", "lost" (the backend no longer knows the run) or "up" (it answers).
    """
    _MOUNT(
        key=key,
        data={
            "token": token,
            "label": label,
            "cancellable": cancellable and token is not None,
            "module": f"{MODULES_URL}/live/events.js",
            "news": news,
            "age_s": age_s,
        },
        on_ended_change=on_end or no_callback,
        on_news_change=no_callback,
    )
