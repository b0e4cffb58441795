"""What the suite and its workers say to each other: one JSON line asks, one answers. Standard library only.

A worker is a process with the models and caches of one party. It does one thing at a time, when it is told to, so the
sides of a measurement take turns although each has an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

DYNAMIC: Final = "transformers, DynamicCache"
STATIC: Final = "transformers, StaticCache"
QUANTIZED: Final = {
    "transformers, QuantizedCache (fp8)": "fp8",
    "transformers, QuantizedCache (quanto, 4 bits)": "quanto",
    "transformers, QuantizedCache (HQQ, 4 bits)": "hqq",
}
"""Sides by the backend of the quantised cache."""
EAGER: Final = "transformers, output_attentions=True"
KVPRESS: Final = "kvpress, SimLayerKVPress"
RECORDED: Final = "ours, recorded for maps, scores and branches"
PLANNED: Final = "ours, plan given"
CHOSEN: Final = "ours, lazy layers chosen on the fly"
FULL: Final = "ours, all layers full"
HALF: Final = "ours, half of the layers lazy"
LAZY: Final = "ours, all layers lazy"
OURS: Final = "ours"
TRANSFORMERS: Final = "transformers"
KVPRESS_PARTY: Final = "kvpress"


def party_of(side: str) -> str:
    """The party that a side belongs to, which is its first word."""
    return side.partition(",")[0]


class Unavailable(Exception):
    """The worker cannot do this here; the message says why, as it will stand in the table."""


def serve(worker: object) -> None:
    """Answers each line of the input with what the method that it names returns, until the input ends.

    An asked line is `{"do": method, ...its arguments}`, an answer `{"found": ...}` or `{"unavailable": why}`. Any other
    exception ends the process.
    """
    # what libraries print must not be taken for an answer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=answers, flush=True)


def answer(worker: object, asked: dict[str, Any]) -> dict[str, Any]:
    """What the worker says to one request."""
    method: Callable[..., Any] = getattr(worker, asked.pop("do"))
    try:
        return {"found": method(**asked)}
    except Unavailable as reason:
        return {"unavailable": str(reason)}
