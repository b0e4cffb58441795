"""What the bare address means."""

from __future__ import annotations

from typing import Final

from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.types import Window
from pages.parts.address import HALF
from pages.parts.metrics import metrics
from pages.parts.prompts import demo_prompts
from pages.parts.recipe import Recipe

# The paper's 4 + 1020 would keep a large part of the demo prompts; a smaller window tells their layers apart.
DEFAULT_WINDOW: Final = Window(sink=4, recent=252)
DEFAULT_LAST: Final = 32
DEFAULT_NEW_TOKENS: Final = 64


def default_recipe() -> Recipe:
    """The choices of a first visit."""
    prompt = next(iter(demo_prompts().values()))
    return Recipe(
        model=catalogue()[0].name,
        prompt=prompt,
        rendering=prompt.rendering,
        window=DEFAULT_WINDOW,
        last=DEFAULT_LAST,
        metric=next(iter(metrics())),
        plan=HALF,
    )
