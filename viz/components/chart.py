"""A chart on the page: the figure, its title, and buttons for PNG, SVG, CSV and the table of its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import plotly

from viz import roles
from viz.chart import FONT_SIZE, Chart
from viz.components import component, source

LIBRARY_URL: Final = "/vendor/plotly.min.js"
LIBRARY_FILE: Final = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"

# Not isolated: plotly writes its own style sheet into the document's head, and the mark-up must stand where it reaches.
_MOUNT = component(
    "lighttransfer_chart",
    html=source("chart.html"),
    css=source("chart.css"),
    js=source("chart.js"),
    isolate_styles=False,
)


def chart(shown: Chart, key: str) -> None:
    """Draw a chart; a new one under the same key redraws in place."""
    _MOUNT(
        key=key,
        data={
            "name": shown.name,
            "title": shown.title,
            "alt": shown.alt,
            "figure": shown.figure.to_json(),
            "csv": shown.csv(),
            "columns": list(shown.columns),
            "rows": [list(row) for row in shown.rows],
            "ink": roles.INK_LIGHT,
            "fontSize": FONT_SIZE,
            "darkScale": roles.colourscale(roles.SEQUENTIAL_DARK),
            "library": LIBRARY_URL,
        },
    )
