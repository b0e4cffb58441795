"""Scores of calibration prompts as they are found, a line for each prompt: a calibration that was stopped goes on.

Each line says which question it is of, so a file may hold those of several.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.frontier.files import replace_text
from lighttransfer_core.frontier.orders import window_text
from lighttransfer_core.frontier.spec import ExampleKey, SweepHeader
from lighttransfer_core.types import Float64Array, Window

Values = Mapping[Window, Float64Array]
"""Of one prompt: the score of each layer, `[L]`, by window."""


class KeptScores:
    """A file that grows by one line per prompt; `done` is what it holds of one question.

    Parameters
    ----------
    header
        Which prompts, windows and model.

    Raises
    ------
    InvalidInputError
        The file cannot be read or written, or holds something else.
    """

    def __init__(self, file: Path, header: SweepHeader, metric: str) -> None:
        self.file = file
        self._asked = hashlib.sha256(f"{header.identity} {metric}".encode()).hexdigest()
        self._windows = {window_text(window): window for window in header.spec.windows}
        self.done: dict[ExampleKey, Values] = {}
        try:
            text = file.read_text(encoding="utf-8") if file.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            # a line that was cut short does not stay
            replace_text(file, whole)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"Cannot keep scores in {file}: {error}. Name another --output.") from error
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._read(json.loads(line), header.model.num_layers)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InvalidInputError(
                    f"Line {number} of {file} holds no scores of `calibrate` ({error}): move the file away."
                ) from error

    def add(self, key: ExampleKey, values: Values) -> None:
        numbers = {name: [_number(one) for one in values[window]] for name, window in self._windows.items()}
        line = json.dumps({"asked": self._asked, "key": key.to_dict(), "values": numbers})
        with self.file.open("a", encoding="utf-8") as out:
            out.write(line + "\n")
        self.done[key] = values

    def _read(self, data: dict[str, Any], layers: int) -> None:
        key, numbers = ExampleKey.from_dict(data["key"]), data["values"]
        if data["asked"] != self._asked:
            return
        values = {window: np.array(numbers[name], dtype=np.float64) for name, window in self._windows.items()}
        if any(one.shape != (layers,) for one in values.values()):
            raise ValueError(f"not {layers} layers")
        self.done[key] = values


def _number(value: float) -> float | None:
    """As JSON has it."""
    return None if math.isnan(value) else float(value)
