"""The paper's queue of layers during the prefill, and its replay from scores: who is cut when, and what is held.

As soon as one layer more than may stay full is in the queue, the laziest leaves it and its cache is cut. Bytes are by
formula. It knows specs and scores and no model. Source: LightTransfer (arXiv 2410.13846), section 4.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

from lighttransfer_core.cost.formulas import kv_bytes_per_layer
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.layer_sets import layers_kept_full
from lighttransfer_core.types import ConversionPlan, JsonRecord, LayerScores, ModelSpec

MomentKind = Literal["push", "pop", "pass", "slide"]
"""A layer was scored and entered the queue; the laziest left it and was cut; a layer that cannot be converted was
passed; it was cut to the model's own sliding window."""


class LazyQueue:
    """The layers that are still full, the laziest in front; of equal ones the higher index, as in a ranking.

    Parameters
    ----------
    room
        How many may stay full.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._heap: list[tuple[float, int]] = []

    @property
    def layers(self) -> tuple[int, ...]:
        """Laziest first."""
        return tuple(-layer for _score, layer in sorted(self._heap))

    def push(self, layer: int, score: float) -> None:
        """A layer whose attention over the whole prompt has been computed."""
        heapq.heappush(self._heap, (-score, -layer))

    def pop_excess(self) -> int | None:
        """The laziest layer, which leaves, where there is one more than may stay full."""
        if len(self._heap) <= self._room:
            return None
        return -heapq.heappop(self._heap)[1]


@dataclass(frozen=True)
class HeapMoment(JsonRecord):
    """What has just happened during the prefill, and how things stand then.

    Attributes
    ----------
    layer
        The layer that it happened to.
    queue
        The layers in the queue, laziest first.
    kv_bytes
        `[L]`; keys and values that each layer holds.
    """

    kind: MomentKind
    layer: int
    queue: tuple[int, ...]
    kv_bytes: tuple[int, ...]


def replay(spec: ModelSpec, scores: LayerScores, keep_full: float = 0.5) -> tuple[HeapMoment, ...]:
    """The prefill of the prompt that was scored, in one pass, down the layers.

    Raises
    ------
    UninformativeScoresError
        The prompt fits the window, so nothing is ever cut.
    InvalidInputError
        The scores are of other layers than the model's, or `keep_full` is not a share.
    """
    scores.ranking()
    if (len(scores.values), scores.convertible) != (spec.num_layers, spec.convertible_layers):
        raise InvalidInputError(
            f"the scores are of {len(scores.convertible)} of {len(scores.values)} layers, and {spec.name} has "
            f"{len(spec.convertible_layers)} convertible ones of {spec.num_layers}: give scores of this model."
        )
    tokens, convertible = scores.num_tokens, spec.convertible_layers
    row = spec.kv_bytes_per_token_per_layer
    whole = [0 if kind == "other" else row * tokens for kind in spec.layer_kinds]
    cut = kv_bytes_per_layer(spec, ConversionPlan(convertible, scores.window), tokens)
    queue, held = LazyQueue(layers_kept_full(keep_full, len(convertible))), [0] * spec.num_layers
    moments: list[HeapMoment] = []

    def note(kind: MomentKind, layer: int, nbytes: int) -> None:
        held[layer] = nbytes
        moments.append(HeapMoment(kind, layer, queue.layers, tuple(held)))

    for layer in range(spec.num_layers):
        if layer in convertible:
            queue.push(layer, float(scores.values[layer]))
            note("push", layer, whole[layer])
            if (popped := queue.pop_excess()) is not None:
                note("pop", popped, cut[popped])
        else:
            note("pass", layer, whole[layer])
            if cut[layer] < whole[layer]:
                note("slide", layer, cut[layer])
    return tuple(moments)
