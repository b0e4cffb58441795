from __future__ import annotations

import numpy as np
import pytest

from lighttransfer_core.types import LayerScores, Window


def make_scores(
    layers: int = 6, heads: int = 3, last: int = 4, tokens: int = 900, window: Window | None = None
) -> LayerScores:
    """Scores of a made-up prompt; layer 2 is not convertible, layer 4 is the laziest."""
    window = window or Window(4, 252)
    draw = np.random.default_rng(7)
    per_head = draw.uniform(0.3, 0.7, (layers, heads))
    per_head[4] = 0.97
    values = per_head.mean(axis=1)
    sink = values * 0.4
    recent = values - sink
    return LayerScores(
        metric="lazy_ratio",
        window=window,
        last=last,
        num_tokens=tokens,
        values=values,
        sink=sink,
        recent=recent,
        rest=1 - values,
        per_head=per_head,
        per_query=np.clip(values[:, None] + draw.uniform(-0.02, 0.02, (layers, last)), 0, 1),
        convertible=tuple(layer for layer in range(layers) if layer != 2),
        informative=tokens > window.size,
    )


@pytest.fixture
def scores() -> LayerScores:
    return make_scores()
