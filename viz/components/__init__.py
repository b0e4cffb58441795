"""The custom components (Streamlit components v2): Python renames arguments into props, JavaScript draws.

The sources stand in `assets/components/`, one file each for markup, style and behaviour, without a build step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).resolve().parents[2] / "assets" / "components"
MODULES: Final = ASSETS.parent
MODULES_URL: Final = "/modules"
"""Where the page server has the folders of `assets` with the scripts that components import."""


def source(*names: str) -> str:
    """The text of component files, joined in the order given."""
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def no_callback() -> None:
    """Stands in where the page wants none: only a trigger with a callback is part of a component's state."""
