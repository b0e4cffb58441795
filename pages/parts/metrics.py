"""The laziness metrics that can be chosen, from the file that `benchmarks/record_default_run.py` writes.

The registry itself lives beside torch, which the page process never imports, and the sidebar must know its choices
before the backend is up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from lighttransfer_core.frontier.orders import CALIBRATED
from lighttransfer_core.types import JsonRecord

FILE: Final = Path(__file__).resolve().parents[2] / "assets" / "recorded" / "metrics.json"


@dataclass(frozen=True)
class MetricText(JsonRecord):
    """What a page says of a metric; the fields of the library's `MetricInfo`."""

    name: str
    title: str
    formula: str
    meaning: str
    source: str
    cost: str
    kind: str


@cache
def metrics() -> dict[str, MetricText]:
    """Name to text, the recommended metric first, controls last."""
    found = [MetricText.from_dict(entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))]
    return {metric.name: metric for metric in found}


def metric_title(name: str) -> str:
    """A metric's title; the name itself of what is none."""
    known = metrics().get(name)
    return name if known is None else known.title


def order_title(name: str) -> str:
    """Of a calibrated order: the title of the metric whose mean it is, and what was added to the metric's name."""
    own = name.removeprefix(CALIBRATED)
    whose = [metric for metric in metrics() if own == metric or own.startswith(f"{metric}_")]
    if not whose:
        return own
    metric = max(whose, key=len)
    added = own.removeprefix(metric).strip("_").replace("_", " ")
    return f"{metric_title(metric)}, {added}" if added else metric_title(metric)


def offered() -> list[str]:
    """Those that a page can wait for: the ones that try layers out take many times as long."""
    return [name for name, metric in metrics().items() if metric.kind != "trial"]
