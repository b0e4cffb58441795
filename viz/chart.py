"""A chart with all that must travel with it: its title, its words for those who do not see it, its numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Rule:
    """A dotted line across a chart at one place of its x axis, with its name `before` or behind it."""

    place: float
    text: str
    before: bool = True


def figure(
    *traces: Any,
    x: str,
    y: str,
    height: int = 340,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    rules: Sequence[Rule] = (),
    **layout: Any,
) -> go.Figure:
    """A figure in the house look, with named axes.

    The layout is given whole to one constructor: plotly's update methods take ten times as long, on every page run.
    """
    house: dict[str, Any] = {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 12, "b": 48},
        "font": {"size": FONT_SIZE, "color": roles.INK_LIGHT},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "bargap": 0.18,
        "xaxis": {**_title(x), "showgrid": False, "zeroline": False, "ticks": "outside", "ticklen": 3, **(xaxis or {})},
        "yaxis": {**_title(y), "zeroline": False, "gridwidth": 1, "automargin": True, **(yaxis or {})},
        "shapes": [_line_across(rule) for rule in rules],
        "annotations": [_name_of(rule) for rule in rules],
    }
    return go.Figure(data=list(traces), layout=house | layout)


def _title(text: str) -> dict[str, Any]:
    return {"title": {"text": text, "standoff": 8}}


def _line_across(rule: Rule) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot", "color": roles.REST.colour}
    return {"type": "line", "x0": rule.place, "x1": rule.place, "y0": 0, "y1": 1, "yref": "y domain", "line": line}


def _name_of(rule: Rule) -> dict[str, Any]:
    side = "right" if rule.before else "left"
    place = {"x": rule.place, "y": 1, "yref": "paper", "xanchor": side, "yanchor": "top"}
    return {**place, "text": rule.text, "showarrow": False, "textangle": -90}


def bar_marker(role: roles.Role) -> dict[str, Any]:
    """Fill and pattern of a role's bars."""
    marker: dict[str, Any] = {"color": role.colour, "line": {"width": 0}}
    if role.pattern:
        marker["pattern"] = {"shape": role.pattern, "fillmode": "overlay", "fgcolor": "#FFFFFF", "fgopacity": 0.55}
        marker["pattern"] |= {"size": 6, "solidity": 0.22}
    return marker
