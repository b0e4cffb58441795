"""Every part of the suite on a tiny model, with workers in this process; numbers of seconds are never asserted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import bench, report
from benchmarks.suite import parts as suite_parts
from benchmarks.suite import room, steps
from benchmarks.suite.growth import decode_growths
from benchmarks.suite.parts import PARTS, Bench
from benchmarks.suite.settings import Settings
from benchmarks.workers.protocol import (
    CHOSEN,
    DYNAMIC,
    EAGER,
    FULL,
    HALF,
    KVPRESS,
    LAZY,
    PLANNED,
    QUANTIZED,
    RECORDED,
    STATIC,
)
from lighttransfer_core.cost.bench_rows import Bar, Row, Spread
from lighttransfer_core.cost.benchmark import Benchmark, Part, read_benchmark
from tests.benchmarks.conftest import IDS, WINDOW, local_worker

TINY = Settings(
    contexts=(40, 90),
    batches=(1, 8),
    dtypes=("float32", "bfloat16"),
    window=WINDOW,
    prefills=2,
    peers_once_from=90,
    rounds=2,
    steps=2,
    warmup=1,
    rounds_alone=1,
    page_contexts=(40, 90),
    repeats=2,
    captures=(40,),
    capture_rounds=1,
    long_tokens=160,
    long_layers=2,
    long_chunk=32,
    throughputs=(100, 150),
    kv_nbytes=200_000,
    profiles=((90, 1),),
    quick=True,
)
FP8, QUANTO, HQQ = QUANTIZED


@pytest.fixture(scope="module")
def tiny_bench(folder: Path) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(suite_parts, "memory_bandwidth", lambda _device: 1e10)
        # bars are said of 8k tokens; here they have to appear at 90
        for module in ("prefill", "decode", "interaction"):
            patched.setattr(f"benchmarks.suite.{module}.BARS_FROM_TOKENS", 90)
        yield Bench(TINY, torch.device("cpu"), lambda place: partial(local_worker, place), folder, IDS)


@pytest.fixture(scope="module")
def found(tiny_bench: Bench) -> Benchmark:
    made = Benchmark()
    for name in PARTS:
        made = made.with_part(bench.measured(tiny_bench, name))
    return made


def part(found: Benchmark, name: str) -> Part:
    one = found.part(name)
    assert one is not None
    return one


def row(found: Benchmark, name: str, side: str, tokens: int, dtype: str = "float32", batch: int = 1) -> Row:
    [one] = [
        row
        for row in part(found, name).rows
        if (row.side, row.tokens, row.dtype, row.batch) == (side, tokens, dtype, batch)
    ]
    return one


def test_each_part_says_when_where_and_on_what(found: Benchmark) -> None:
    assert [one.name for one in found.parts] == list(PARTS)
    for one in found.parts:
        assert one.quick
        assert one.machine.bandwidth_bytes_per_s == 1e10
        assert one.machine.torch_version == torch.__version__
        assert one.took_s > 0
    assert "2 layers, 224 positions" in part(found, "long").model
    assert "4 layers, 214 positions" in part(found, "throughput").model


def test_decoding_has_every_side_at_every_size_and_says_why_one_is_missing(found: Benchmark) -> None:
    rows = part(found, "decode").rows
    assert len(rows) == 9 * 2 * 2 * 2
    absent = {(one.side, one.note) for one in rows if one.seconds is None}
    assert absent == {
        (QUANTO, "its package is not installed (quanto)"),
        (HQQ, "its package is not installed (hqq)"),
        (KVPRESS, "kvpress is not installed"),
    }
    assert {one.side for one in rows if one.peer} == {DYNAMIC, STATIC, *QUANTIZED, KVPRESS}
    full = row(found, "decode", FULL, 90, batch=8)
    assert full.seconds is not None
    assert full.seconds.count == 4
    assert full.ratio is not None
    assert full.ratio.count == 2
    assert full.limit_s == pytest.approx((full.read_bytes or 0) / 1e10)
    assert full.kept_tokens == pytest.approx(90 + 1 + 4), "warm-up and steps grow it"
    half = row(found, "decode", HALF, 90, "bfloat16")
    assert (half.lazy_layers, half.kept_tokens) == (2, pytest.approx((95 + 32) / 2))
    assert row(found, "decode", LAZY, 40).kept_tokens == pytest.approx(32)


def test_bars_are_said_of_the_rows_that_they_are_about(found: Benchmark) -> None:
    held = {(name.name, row.side, row.dtype, row.batch): [] for name, row, _ in found.held()}
    for one, row_, bar in found.held():
        held[one.name, row_.side, row_.dtype, row_.batch].append(bar)
        assert row_.tokens == 90
    assert held["decode", FULL, "float32", 1] == [Bar("ratio", at_least=1.6)]
    assert held["decode", FULL, "float32", 8] == [Bar("ratio", at_least=3.0)]
    assert held["decode", FULL, "bfloat16", 1] == [Bar("ratio", at_least=2.5)]
    assert ("decode", HALF, "float32", 1) not in held
    full, half = (row(found, "decode", side, 90, batch=8).read_bytes or 0 for side in (FULL, HALF))
    [least] = held["decode", HALF, "float32", 8]
    assert least.at_least == pytest.approx(0.9 * full / half)
    assert held["prefill", RECORDED, "float32", 1] == [
        Bar("ratio", at_most=1.10),
        Bar("extra_bytes", at_most=4 * 90**2),
    ]
    assert held["prefill", CHOSEN, "float32", 1] == [Bar("ratio", at_most=1.03)]
    assert len(held) == 6 + 2 + 3


def test_prefills_compare_sides_of_the_same_rounds(found: Benchmark) -> None:
    assert len(part(found, "prefill").rows) == 2 * 9
    counts = {side: row(found, "prefill", side, 90).seconds for side in (STATIC, DYNAMIC, RECORDED, PLANNED, CHOSEN)}
    assert {side: time.count for side, time in counts.items() if time} == {
        STATIC: 1,
        DYNAMIC: 2,
        RECORDED: 2,
        PLANNED: 2,
        CHOSEN: 2,
    }
    recorded, planned = (row(found, "prefill", side, 90) for side in (RECORDED, PLANNED))
    assert recorded.ratio_of == "times DynamicCache’s time"
    assert (planned.ratio, planned.lazy_layers) == (None, 2)
    assert row(found, "prefill", FP8, 90).ratio_of == "times as long as ours with a plan"


def test_the_other_parts(found: Benchmark) -> None:
    eager, record = part(found, "capture").rows
    assert (eager.side, record.side, eager.peer) == (EAGER, RECORDED, True)
    assert (eager.kept_bytes or 0) > 4 * 6 * 40 * 40 * 4
    assert len(part(found, "interaction").rows) == 6
    profile = part(found, "profile").rows
    assert [(one.side, one.dtype) for one in profile[:2]] == [(FULL, "float32"), (HALF, "float32")]
    assert "products of the linear layers" in profile[0].note
    long = part(found, "long").rows
    assert [one.note for one in long] == ["prefill, 32 tokens at a time"] * 3 + ["decode step"] * 3
    assert {one.tokens for one in long} == {160}


def test_throughput_is_of_the_largest_batches_that_fit(found: Benchmark) -> None:
    batches = {(one.side, one.tokens): one.batch for one in part(found, "throughput").rows}
    per_token = 4 * 128
    assert batches[DYNAMIC, 100] == batches[FULL, 100] == 200_000 // (100 * per_token) == 3
    assert batches[HALF, 150] == 200_000 // ((150 + 32) * per_token // 2) == 4
    half = next(one for one in part(found, "throughput").rows if (one.side, one.tokens) == (HALF, 150))
    assert half.ratio_of == "times the tokens a second of all layers full"
    assert (half.kept_bytes or 0) <= 200_000


def test_costs_are_fitted_over_tokens_and_batch() -> None:
    """Of steps that are made of 10 ms, 2 ms for a token kept, and 5 ms for a sequence."""
    rows = [
        Row(side, "float32", tokens, batch, kept_tokens=kept, seconds=Spread.of([0.01 + 0.002 * kept + 0.005 * batch]))
        for batch in (1, 8)
        for side, tokens, kept in ((FULL, 40, 40.0), (FULL, 90, 90.0), (HALF, 90, 61.0), (LAZY, 90, 32.0))
    ]
    lines = {line.what: line for line in decode_growths([*rows, Row(DYNAMIC, "float32", 40, seconds=rows[0].seconds)])}
    over_tokens = lines["decode step, float32, batch 8, all our sides"]
    assert (over_tokens.slope, over_tokens.intercept) == (pytest.approx(0.002), pytest.approx(0.05))
    assert (over_tokens.r2, over_tokens.count) == (pytest.approx(1.0), 4)
    over_batch = lines["decode step, float32, 90 tokens, all layers full"]
    assert (over_batch.slope, over_batch.count) == (pytest.approx(0.005), 2)
    assert decode_growths([rows[0]]) == [], "one point is no line"


def test_growths_of_the_parts_are_measured(found: Benchmark) -> None:
    assert len(part(found, "decode").growths) == 2 * 2 + 2 * 2
    assert len(part(found, "interaction").growths) == 3


def test_caches_that_do_not_fit_together_take_their_turns_one_by_one(
    tiny_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tiny_bench.embedded
    sizes = [steps.Entrant(side, 1, 1000) for side in (FULL, HALF)] + [steps.Entrant(LAZY, 1, 10_000)]
    monkeypatch.setattr(room, "available_bytes", lambda _device: 3000)
    cell = steps.decode_cell(stage, sizes, 90, "float32", TINY)
    assert not cell.together
    assert list(cell.kv_bytes) == [FULL, HALF]
    assert cell.missing[LAZY] == "it takes 12.2 KiB, and 2.93 KiB of memory are free", "with room to grow"
    assert {len(turns) for turns in cell.rounds.seconds.values()} == {TINY.rounds_alone}
    assert not stage.of(FULL).worker._decoding  # type: ignore[attr-defined]


def test_a_capture_that_does_not_fit_is_named(tiny_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda _device: 200_000)
    eager, record = tiny_bench.capture().rows
    assert eager.note == "it takes 225 KiB, and 195 KiB of memory are free"
    assert eager.seconds is None
    assert record.seconds is not None


def test_results_are_written_with_a_table_and_read_back(found: Benchmark, tmp_path: Path) -> None:
    file = tmp_path / "results" / "bench.json"
    report.write(file, found)
    assert read_benchmark(file) == found
    text = file.with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith("## What we hold ourselves to")
    for name in PARTS:
        assert f"## {name}\n" in text
    assert f"- {KVPRESS}: kvpress is not installed (at every size)" in text
    assert json.loads(file.read_text(encoding="utf-8"))["parts"][0]["name"] == "prefill"
    assert sorted(one.name for one in file.parent.iterdir()) == ["bench.json", "bench.md"]


def test_a_table_says_who_is_ahead(found: Benchmark) -> None:
    peer = Row(
        DYNAMIC, "float32", 40, seconds=Spread.of([1.0]), ratio=Spread(0.5, 0.4, 0.6, 3), ratio_of="times", peer=True
    )
    ahead = Benchmark((replace(found.parts[0], rows=(peer,)),))
    assert "Faster than ours:\n\n- prefill: transformers, DynamicCache" in report.markdown(ahead)
    level = Benchmark((replace(found.parts[0], rows=(replace(peer, ratio=Spread(1.0, 0.9, 1.1, 3)),)),))
    assert "No peer is ahead of ours.\n" in report.markdown(level)


def test_parts_are_chosen_by_name_in_the_order_of_the_suite() -> None:
    assert bench.parts("decode,prefill") == ("prefill", "decode")
    with pytest.raises(Exception, match="speed: choose from prefill"):
        bench.parts("speed")
