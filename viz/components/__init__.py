"""The custom components (Streamlit components v2): Python renames arguments into props, JavaScript draws.

The sources stand in `assets/components/`, one file each for markup, style and behaviour, without a build step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import streamlit as st

ASSETS: Final = Path(__file__).resolve().parents[2] / "assets" / "components"
MODULES: Final = ASSETS.parent
MODULES_URL: Final = "/modules"
"""Where the page server has the folders of `assets` with the scripts that components import."""


def source(*names: str) -> str:
    """The text of component files, joined in the order given."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def component(name: str, *, html: str, css: str, js: str, isolate_styles: bool = True) -> Callable[..., Any]:
    """A component, to be called as often as it is drawn.

    Its data goes out as the only item of a list: among the values of a dict Streamlit looks for tables, and imports
    pandas to tell them, which takes longer than to draw the first page.
    """
    mounted = st.components.v2.component(name, html=html, css=css, js=js, isolate_styles=isolate_styles)

    def draw(*, data: dict[str, Any], **given: Any) -> Any:
        return mounted(data=[data], **given)

    return draw


def no_callback() -> None:
    """Stands in where the page wants none: only a trigger with a callback is part of a component's state."""
