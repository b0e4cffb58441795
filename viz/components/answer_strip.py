"""What a check of a plan found, prompt by prompt: live from its event stream, or as it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from viz import roles
from viz.components import MODULES_URL, component, source

_MOUNT = component(
    "lighttransfer_answer_strip",
    html=source("answer_strip.html"),
    css=source("answer_strip.css")
    .replace("__FULL__", roles.RUN_A.colour)
    .replace("__PLAN__", roles.RUN_B.colour)
    .replace("__WINDOW__", roles.LAZY.colour),
    js=source("answer_strip.js"),
)


def answer_strip(
    prompts: Sequence[Mapping[str, Any]], titles: Mapping[str, str], key: str, token: str | None = None
) -> None:
    """Draw the prompts of a check, or follow the run of that token.

    Parameters
    ----------
    prompts
        `CheckedPrompt`s as dictionaries; not read where a run is followed.
    titles
        What each task is called.
    """
    _MOUNT(
        key=key,
        data={
            "prompts": [dict(one) for one in prompts],
            "titles": dict(titles),
            "token": token,
            "module": f"{MODULES_URL}/live/events.js",
        },
    )
