"""What workers hold and compute is exact; how fast this machine is, no test asserts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from benchmarks.workers.caches import held_bytes, refilled
from benchmarks.workers.memory import Peak
from benchmarks.workers.our_worker import OurWorker, part_of
from benchmarks.workers.protocol import (
    CHOSEN,
    DYNAMIC,
    EAGER,
    FULL,
    HALF,
    LAZY,
    PLANNED,
    QUANTIZED,
    RECORDED,
    STATIC,
    Unavailable,
)
from benchmarks.workers.transformers_worker import TransformersWorker
from benchmarks.workers.worker import ROOM
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.types import ModelSpec
from tests.benchmarks.conftest import IDS, WINDOW

FP8, QUANTO, HQQ = QUANTIZED
SCALES = 4 * 2 * 4
"""Bytes of the factors of a cache of fp8: a float32 for the keys and one for the values of each layer."""


@pytest.fixture
def theirs(folder: Path) -> TransformersWorker:
    worker = TransformersWorker(str(folder), "cpu")
    worker.prompt(IDS)
    return worker


@pytest.fixture
def ours(folder: Path) -> OurWorker:
    worker = OurWorker(str(folder), "cpu", str(WINDOW.sink), str(WINDOW.recent))
    worker.prompt(IDS)
    return worker


def spec_of(worker: OurWorker, dtype: str = "float32") -> ModelSpec:
    return ModelSpec.from_dict(worker.spec(dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_our_sides_keep_what_the_formula_says_step_by_step(ours: OurWorker, dtype: str) -> None:
    spec = spec_of(ours, dtype)
    assert (spec.dtype, ours.plan(FULL)) == (dtype, None)
    assert [len(plan.lazy_layers) for side in (HALF, LAZY) if (plan := ours.plan(side))] == [2, 4]
    for side in (FULL, HALF, LAZY):
        for made_up in (False, True):
            ours.open(side, 100, 3, dtype, made_up)
            found = ours.steps(side, 4)
            assert found["kv_bytes"] == kv_bytes(spec, ours.plan(side), 104, 3)
            assert len(found["seconds"]) == 4
            ours.close(side)


def test_their_caches_hold_their_tensors_bytes(ours: OurWorker, theirs: TransformersWorker) -> None:
    spec = spec_of(ours)
    bytes_after = {}
    for side in (DYNAMIC, STATIC, FP8):
        theirs.open(side, 100, 3, "float32")
        bytes_after[side] = theirs.steps(side, 4)["kv_bytes"]
    assert bytes_after[DYNAMIC] == kv_bytes(spec, None, 104, 3)
    assert bytes_after[STATIC] == kv_bytes(spec, None, 100 + ROOM, 3)
    assert bytes_after[FP8] == kv_bytes(spec, None, 104, 3) // 4 + SCALES
    theirs.open(DYNAMIC, 100, 2, "bfloat16", made_up=True)
    assert theirs.steps(DYNAMIC, 1)["kv_bytes"] == kv_bytes(spec_of(ours, "bfloat16"), None, 101, 2)


def test_all_sides_that_keep_everything_decode_the_same_tokens(ours: OurWorker, theirs: TransformersWorker) -> None:
    """From the same first token: what a batch copies is the prompt that was run."""
    theirs.prefill(DYNAMIC, 100)
    ours.open(FULL, 100, 2, "float32")
    first = ours._decoding[FULL].batch._next.clone()  # type: ignore[attr-defined]
    chosen = {}
    for side in (DYNAMIC, STATIC):
        theirs.open(side, 100, 2, "float32")
        decoder: Any = theirs._decoding[side]
        decoder._ids = first
        chosen[side] = [decoder.step() and decoder._ids.flatten().tolist() for _ in range(6)]
    batch = ours._decoding[FULL].batch  # type: ignore[attr-defined]
    expected = [batch.step().token_ids.tolist() for _ in range(6)]
    assert chosen == {DYNAMIC: expected, STATIC: expected}


def test_prefills_say_what_they_left(ours: OurWorker, theirs: TransformersWorker) -> None:
    spec = spec_of(ours)
    kept = {side: theirs.prefill(side, 100)["kept_bytes"] for side in (DYNAMIC, STATIC, FP8)}
    assert kept[DYNAMIC] == kv_bytes(spec, None, 100) == 4 * (kept[FP8] - SCALES)
    assert kept[STATIC] == kv_bytes(spec, None, 100 + ROOM)
    found = {side: ours.prefill(side, 100) for side in (RECORDED, PLANNED, CHOSEN)}
    assert [one["lazy_layers"] for one in found.values()] == [None, 2, 2]
    assert found[PLANNED]["kept_bytes"] == found[CHOSEN]["kept_bytes"] == kv_bytes(spec, ours.plan(HALF), 100)
    assert found[RECORDED]["kept_bytes"] == ours._finished[RECORDED, 100].finished.nbytes
    assert list(ours._finished) == [(RECORDED, 100)], "only what sides decode after is kept"
    assert [ours.lazy_layers(side, 100) for side in (FULL, HALF, LAZY)] == [None, 2, 4]
    assert theirs.lazy_layers(STATIC, 100) is None


def test_chunks_leave_what_one_pass_does(ours: OurWorker, theirs: TransformersWorker) -> None:
    for worker, side in ((theirs, DYNAMIC), (ours, RECORDED), (ours, PLANNED)):
        assert worker.prefill(side, 100, chunk=32)["kept_bytes"] == worker.prefill(side, 100)["kept_bytes"]


def test_capture_holds_every_layer_s_map_and_leaves_the_model_as_it_was(theirs: TransformersWorker) -> None:
    found = theirs.prefill(EAGER, 64)
    maps = 4 * 6 * 64 * 64 * 4
    assert found["kept_bytes"] == theirs.prefill(DYNAMIC, 64)["kept_bytes"] + maps
    assert theirs.model("float32").config._attn_implementation == "sdpa"


def test_a_cache_whose_package_is_missing_is_unavailable_by_name(theirs: TransformersWorker) -> None:
    for side, backend in ((QUANTO, "quanto"), (HQQ, "hqq")):
        with pytest.raises(Unavailable, match=rf"not installed \({backend}\)"):
            theirs.available(side)
    theirs.available(FP8)


def test_a_turn_ends_early_once_its_time_is_spent(ours: OurWorker) -> None:
    ours.open(FULL, 100, 1, "float32")
    assert len(ours.steps(FULL, 9, budget_s=0.0)["seconds"]) == 1
    assert len(ours.steps(FULL, 9, budget_s=60.0)["seconds"]) == 9


def test_waits_and_the_parts_of_a_step(ours: OurWorker) -> None:
    found = ours.waits(100, 2)
    assert {name: len(found[name]) for name in ("score", "tile", "second")} == {"score": 2, "tile": 2, "second": 2}
    assert found["prefill"] == ours._finished[RECORDED, 100].finished.seconds
    ours.open(FULL, 100, 2, "float32")
    shares = ours.profile(FULL, 2)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["products of the linear layers"] > 0
    assert shares["attention"] > 0


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("aten::mm", "products of the linear layers"),
        ("aten::addmv_", "products of the linear layers"),
        ("mkldnn::_linear_pointwise", "products of the linear layers"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::logaddexp", "attention"),
        ("aten::copy_", "copies"),
        ("aten::mul", "everything else"),
    ],
)
def test_operations_belong_to_parts(operation: str, part: str) -> None:
    assert part_of(operation) == part


def test_bytes_of_whatever_a_cache_is_made_of() -> None:
    tensor = torch.zeros(3, dtype=torch.float32)
    assert held_bytes((tensor, {"scale": tensor, "axis": 1})) == 24
    assert held_bytes(None) == 0


def test_copies_of_a_prompt_own_their_memory() -> None:
    prompt = DynamicCache()
    prompt.update(torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4), 0)
    copies = refilled(prompt, DynamicCache(), 3, "bfloat16")
    assert (copies.layers[0].keys.shape, copies.layers[0].keys.dtype) == ((3, 2, 5, 4), torch.bfloat16)
    assert held_bytes(copies.layers[0].keys) == 3 * 2 * 5 * 4 * 2


def test_a_peak_is_what_was_held_beyond_what_stays() -> None:
    peak = Peak(torch.device("cpu"))
    kept = torch.ones(2**22)
    (torch.ones(2**23) + 1).sum()
    held = peak.beyond(kept.nbytes)
    if held is not None:  # where the system tells
        assert held == pytest.approx(2 * 2**25, rel=0.1)
    assert peak.beyond(2**40) in (0, None)
