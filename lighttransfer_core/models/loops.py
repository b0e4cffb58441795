"""The loops that decoding on a CPU runs, brought before a prompt has to wait for them.

`python -m lighttransfer_core.models.loops` compiles them once for this processor.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from types import ModuleType
from typing import Final

import torch

from lighttransfer_core.attention import few_rows
from lighttransfer_core.models import dots, norms

_USUAL: Final = (torch.float32, torch.bfloat16)


def make_ready(dtype: torch.dtype, weights: torch.dtype | None = None) -> None:
    """Brings the loops for a model that computes in a type; its weights are of the same or another."""
    few_rows.make_ready(dtype)
    dots.make_ready(dtype, weights)
    norms.make_ready(dtype)


def main() -> None:
    """Compiles the loops of the usual types: those of attention take about as long as all others."""
    with ProcessPoolExecutor(2) as processes:
        for done in [processes.submit(_compile, part) for part in ("attention", "products and norms")]:
            done.result()


def _compile(part: str) -> None:
    modules: tuple[ModuleType, ...] = (few_rows,) if part == "attention" else (dots, norms)
    for module in modules:
        for dtype in _USUAL:
            module.make_ready(dtype)


if __name__ == "__main__":
    main()
