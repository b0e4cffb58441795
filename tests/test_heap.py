"""The replay of the paper's queue against the queue of a real prefill."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
import torch

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError, UninformativeScoresError
from lighttransfer_core.heap import HeapMoment, LazyQueue, replay
from lighttransfer_core.laziness import HeapPolicy
from lighttransfer_core.types import ModelSpec, Window
from tests.conftest import make_tiny, tokens
from tests.viz.conftest import make_scores

WINDOW = Window(2, 9)


def totals(moments: Iterable[HeapMoment]) -> list[int]:
    return [sum(moment.kv_bytes) for moment in moments]


@pytest.mark.parametrize("keep_full", [0.0, 0.25, 0.5, 1.0])
def test_the_replay_is_what_the_heap_of_a_real_prefill_does(
    architecture: str, keep_full: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids, cuts = make_tiny(architecture), tokens(60), []
    real = HeapPolicy.cut

    def seen(self: HeapPolicy, layer: int) -> list[int]:
        found = list(real(self, layer))
        cuts.extend((layer, one) for one in found)
        return found

    monkeypatch.setattr(HeapPolicy, "cut", seen)
    with torch.no_grad(), lt.hybrid(model, lt.OnTheFly(keep_full, WINDOW, last=8)) as cache:
        model(ids, past_key_values=cache)
    prefill = lt.run_prefill(model, ids)
    scores = lt.score_layers(prefill, WINDOW, last=8)
    moments = replay(prefill.spec, scores, keep_full)
    reached = -1
    popped = []
    for moment in moments:
        if moment.kind in ("push", "pass"):
            reached = moment.layer
        elif moment.kind == "pop":
            popped.append((reached, moment.layer))
    assert popped == cuts
    assert moments[-1].kv_bytes == cache.layer_nbytes()
    assert max(totals(moments)) == cache.peak_nbytes
    assert tuple(sorted(layer for _, layer in popped)) == lt.plan_from_scores(scores, keep_full).lazy_layers
    assert set(moments[-1].queue) == set(scores.convertible).difference(layer for _, layer in popped)


SPEC = ModelSpec(
    "mixed",
    "llama",
    6,
    6,
    2,
    8,
    2048,
    97,
    "float32",
    4,
    "cpu",
    None,
    1,
    1,
    ("full", "full", "sliding", "full", "full", "full"),
    (None, None, 50, None, None, None),
    {2: "slides by itself"},
)


def test_every_moment_of_a_model_with_a_layer_that_slides_by_itself() -> None:
    """Layer 4 is the laziest, layer 2 cannot be converted, and two layers may stay full."""
    scores = dataclasses.replace(make_scores(), values=[0.3, 0.5, 0.4, 0.5, 0.9, 0.1])
    full, lazy, own = (count * 2 * 2 * 8 * 4 for count in (900, 256, 50))
    moments = replay(SPEC, scores, keep_full=0.4)
    assert [(moment.kind, moment.layer) for moment in moments] == [
        ("push", 0), ("push", 1), ("pass", 2), ("slide", 2), ("push", 3), ("pop", 3), ("push", 4), ("pop", 4),
        ("push", 5), ("pop", 1),
    ]  # fmt: skip
    assert moments[4].queue == (3, 1, 0), "of equal scores the higher index leaves first"
    assert moments[2].kv_bytes == (full, full, full, 0, 0, 0)
    assert moments[-1].kv_bytes == (full, lazy, own, lazy, lazy, full)
    assert totals(moments)[4] == 3 * full + own


def test_a_queue_without_room_lets_every_layer_go_at_once() -> None:
    queue = LazyQueue(0)
    queue.push(3, 0.5)
    assert (queue.pop_excess(), queue.pop_excess(), queue.layers) == (3, None, ())


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(UninformativeScoresError):
        replay(SPEC, make_scores(tokens=100))
    with pytest.raises(InvalidInputError, match="5 of 6 layers"):
        replay(dataclasses.replace(SPEC, not_convertible={}), make_scores())
    with pytest.raises(InvalidInputError, match="share"):
        replay(SPEC, make_scores(), 1.5)
