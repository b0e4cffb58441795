"""A chart with all that must travel with it: its title, its words for those who do not see it, its numbers."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from viz import roles

FONT_SIZE: Final = 13

Cell = str | int | float | None


@dataclass(frozen=True)
class Chart:
    """One figure and its companions.

    Attributes
    ----------
    name
        File stem of its exports.
    title
        One line above it, and the title of exported pictures.
    alt
        What it shows, in a sentence or two, numbers included.
    columns, rows
        The numbers behind it, exact; units stand in the column names.
    """

    name: str
    title: str
    alt: str
    figure: go.Figure
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """The numbers as CSV with a header line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()


def figure(*traces: Any, x: str, y: str, height: int = 340, **layout: Any) -> go.Figure:
    """A figure in the house look, with named axes."""
    built = go.Figure(data=list(traces))
    built.update_layout(
        height=height,
        margin={"l": 64, "r": 16, "t": 12, "b": 48},
        font={"size": FONT_SIZE, "color": roles.INK_LIGHT},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        bargap=0.18,
    )
    built.update_xaxes(title={"text": x, "standoff": 8}, showgrid=False, zeroline=False, ticks="outside", ticklen=3)
    built.update_yaxes(title={"text": y, "standoff": 8}, zeroline=False, gridwidth=1, automargin=True)
    built.update_layout(**layout)
    return built


def bar_marker(role: roles.Role) -> dict[str, Any]:
    """Fill and pattern of a role's bars."""
    marker: dict[str, Any] = {"color": role.colour, "line": {"width": 0}}
    if role.pattern:
        marker["pattern"] = {"shape": role.pattern, "fillmode": "overlay", "fgcolor": "#FFFFFF", "fgopacity": 0.55}
        marker["pattern"] |= {"size": 6, "solidity": 0.22}
    return marker
