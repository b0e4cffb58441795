"""The fixed colour, pattern and name of each role, the same in every chart, component and theme.

Every colour reaches a contrast of 3:1 on both the light and the dark page, so one value serves both. Roles that share
a chart also differ in pattern, dash or marker, so that nothing is told by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Role:
    """How one role looks.

    Attributes
    ----------
    label
        Its name in legends and hover text.
    colour
        Hex, for marks and fills.
    pattern
        Plotly fill pattern of its bars; empty is a plain fill.
    dash, symbol
        Plotly line dash and marker of its lines.
    """

    label: str
    colour: str
    pattern: str = ""
    dash: str = "solid"
    symbol: str = "circle"


SINK: Final = Role("Sink tokens", "#C25E12", pattern="/")
RECENT: Final = Role("Recent tokens", "#2F74D0")
REST: Final = Role("All other tokens", "#7C8290", pattern=".")
LEARNED_SINK: Final = Role("Learned sink", "#9A6A4F", pattern="x")
LAZY: Final = Role("Lazy layer (streaming)", "#0C8F7E", pattern="/", dash="dash", symbol="diamond")
FULL: Final = Role("Full layer", "#7A62C9")
RUN_A: Final = Role("A: full model", "#6E8424")
RUN_B: Final = Role("B: plan", "#CF4A85", dash="dash", symbol="diamond")
RUN_C: Final = Role("C: another plan", "#A87400", dash="dot", symbol="square")
RUN_D: Final = Role("D: another plan", "#5C87A6", dash="dashdot", symbol="triangle-up")

ROLES: Final[dict[str, Role]] = {
    "sink": SINK,
    "recent": RECENT,
    "rest": REST,
    "learned_sink": LEARNED_SINK,
    "lazy": LAZY,
    "full": FULL,
    "a": RUN_A,
    "b": RUN_B,
    "c": RUN_C,
    "d": RUN_D,
}

SERIES: Final = (
    ("#2F74D0", "solid", "circle"),
    ("#C25E12", "dash", "diamond"),
    ("#0C8F7E", "dot", "square"),
    ("#CF4A85", "dashdot", "triangle-up"),
    ("#7A62C9", "longdash", "cross"),
    ("#6E8424", "longdashdot", "x"),
    ("#5C87A6", "solid", "star"),
    ("#A87400", "dash", "hexagon"),
)
"""Colour, dash and marker of lines without a role of their own, in the order in which they are chosen."""

# One hue, from the page's own shade to the lazy role's; the dark page runs the other way.
SEQUENTIAL_LIGHT: Final = ("#EEF5F3", "#C4E1DB", "#8FC9BE", "#50AB9C", "#1C8476", "#0A5F55", "#063F39")
SEQUENTIAL_DARK: Final = ("#182724", "#1B3D38", "#1F5A52", "#24796E", "#2F9E8F", "#6CC4B6", "#BCE8E0")

# Attention maps: one hue, from almost the page to almost ink; differences from one hue over the page to another.
MAP_LIGHT: Final = ("#F7F9FC", "#D6E3F3", "#A9C6E8", "#6E9FD6", "#3B76B9", "#1F4F8C", "#0D2A52")
MAP_DARK: Final = ("#10151D", "#152740", "#1B4068", "#2A6299", "#4A8DCB", "#8CBDEB", "#DDEEFF")
DIVERGING_LIGHT: Final = ("#8A3A06", "#D07A35", "#F2CDA9", "#F7F8FA", "#B3D0EE", "#4B86C6", "#123F78")
DIVERGING_DARK: Final = ("#FFD2A6", "#E08C43", "#74421A", "#14181F", "#1C4268", "#4C90D2", "#CFE6FF")
MASKED_LIGHT: Final = "#DADDE3"
MASKED_DARK: Final = "#2B313B"

PAGE_LIGHT: Final = ("#FFFFFF", "#F5F6F8")
PAGE_DARK: Final = ("#12151B", "#1A1E26")
INK_LIGHT: Final = "#1B1F27"
INK_DARK: Final = "#E6E9EF"


def colourscale(stops: tuple[str, ...]) -> list[tuple[float, str]]:
    """Evenly spaced plotly stops."""
    return [(index / (len(stops) - 1), stop) for index, stop in enumerate(stops)]


def luminance(colour: str) -> float:
    """Relative luminance of a hex colour (WCAG 2.2)."""
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two hex colours, 1 to 21 (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def readable_on(colour: str) -> str:
    """The ink, dark or light, that reads better on a fill."""
    return max(("#000000", "#FFFFFF"), key=lambda ink: contrast(ink, colour))


def shade(value: float, low: float, high: float, stops: tuple[str, ...]) -> str:
    """The hex colour of `value` on a scale of `stops` from `low` to `high`, interpolated in sRGB."""
    span = high - low
    place = 0.0 if span <= 0 else min(max((value - low) / span, 0.0), 1.0)
    index = min(int(place * (len(stops) - 1)), len(stops) - 2)
    part = place * (len(stops) - 1) - index
    pairs = [(int(stops[index][i : i + 2], 16), int(stops[index + 1][i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * part):02X}" for a, b in pairs)
