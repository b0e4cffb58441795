"""The loops that decoding on a CPU runs, brought before a prompt has to wait for them.

`python -m lighttransfer_core.models.loops` compiles them once for this processor.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from lighttransfer_core.attention import few_rows
from lighttransfer_core.models import dots, norms, rotations


def make_ready(dtype: torch.dtype, weights: torch.dtype | None = None) -> None:
    """Brings the loops for a model that computes in a type; its weights are of the same or another."""
    few_rows.make_ready(dtype)
    dots.make_ready(dtype, weights)
    norms.make_ready(dtype)
    rotations.make_ready(dtype)


def main() -> None:
    """Compiles the loops of the usual types: those of attention take about as long as all others."""
    with ProcessPoolExecutor(2) as processes:
        list(
            processes.map(
                _of_usual_types, (few_rows.make_ready, dots.make_ready, norms.make_ready, rotations.make_ready)
            )
        )


def _of_usual_types(make_ready: Callable[[torch.dtype], None]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        make_ready(dtype)


if __name__ == "__main__":
    main()
