from __future__ import annotations

import pytest

from lighttransfer_core.cost.bench_rows import Bar, Growth, Row, Spread
from lighttransfer_core.cost.benchmark import Benchmark
from tests.made_benchmark import DYNAMIC, FULL, HALF, KVPRESS, QUANTO, made_benchmark, prefills, steps
from viz import benchmark, roles
from viz.chart import Chart

ROWS = [row for tokens in (8128, 1024) for row in steps("float32", tokens, 1)]


def benchmark_charts() -> list[Chart]:
    return [benchmark.steps_over_context(ROWS)]


def test_a_line_for_each_side_that_was_measured_ours_first_and_looking_as_everywhere() -> None:
    [chart] = benchmark_charts()
    assert [trace.name for trace in chart.figure.data] == [FULL, HALF, DYNAMIC, KVPRESS]
    full, half, *peers = chart.figure.data
    assert (full.line.color, full.marker.symbol) == (roles.FULL.colour, roles.FULL.symbol)
    assert (half.line.color, half.marker.symbol) == (roles.LAZY.colour, roles.LAZY.symbol)
    looks = [(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in chart.figure.data]
    assert len(set(looks)) == len(looks)
    assert not {roles.FULL.colour, roles.LAZY.colour} & {trace.line.color for trace in peers}


def test_points_are_medians_in_milliseconds_with_their_quartiles_shortest_context_first() -> None:
    full = benchmark_charts()[0].figure.data[0]
    first, last = (next(row for row in steps("float32", tokens, 1) if row.side == FULL) for tokens in (1024, 8128))
    assert list(full.x) == [1024, 8128]
    assert list(full.y) == pytest.approx([1000 * row.seconds.median for row in (first, last)])
    assert full.error_y.array[1] == pytest.approx(100 * last.seconds.median)
    assert full.error_y.arrayminus[1] == pytest.approx(50 * last.seconds.median)
    assert benchmark_charts()[0].rows[1][:3] == (FULL, 8128, last.seconds.median)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (Spread(0.0123, 0.0119, 0.0128, 9), "12.3 [11.9, 12.8] ms"),
        (Spread(1.5, 1.25, 100.4, 9), "1.50 [1.25, 100] s"),
        (Spread(0.9999, 0.9999, 0.9999, 1), "1,000 ms"),
        (Spread(0.0012, 0.0012, 0.0012, 1), "1.20 ms"),
    ],
)
def test_times_have_one_unit(value: Spread | None, text: str) -> None:
    assert benchmark.time_text(value) == text


def test_bars_say_what_is_held_and_whether_it_was() -> None:
    recorded = prefills()[1]
    ratio, extra = recorded.bars
    assert benchmark.bar_text(ratio) == "at most 1.10"
    assert benchmark.found_text(ratio, recorded) == "1.20 [1.18, 1.22] times DynamicCache’s time"
    near, share = Row("x", "float32", 1, ratio=Spread.of([1.1031])), Row("x", "float32", 1, ratio=Spread.of([0.0044]))
    assert benchmark.found_text(ratio, near) == "1.103 ", "it does not look like its bar"
    assert benchmark.found_text(ratio, share) == "0.004 "
    assert (benchmark.met_text(ratio, recorded), benchmark.met_text(extra, recorded)) == ("missed", "met")
    assert benchmark.bar_text(extra) == "at most 252 MiB"
    assert benchmark.found_text(extra, recorded) == "76.3 MiB held beyond what is kept"
    assert benchmark.found_text(extra, Row("x", "float32", 1)) == "not measured on this system"
    assert benchmark.met_text(extra, Row("x", "float32", 1)) == "not measured"
    assert benchmark.bar_text(Bar("seconds", at_most=0.05)) == "at most 50.0 ms"
    assert benchmark.bar_text(Bar("ratio", at_least=1.6)) == "at least 1.60"


def test_a_line_is_told_with_its_fit_and_what_it_comes_to() -> None:
    line = Growth("step", "token that a layer keeps of a sequence", 0.05, 2e-6, 0.99, 1000.0, 8000.0, 9)
    told = benchmark.growth_text(line)
    assert told.startswith("50.0 ms + 2.0 ms per 1,000 tokens that a layer keeps of a sequence")
    assert told.endswith("R² 0.990, 9 points, 1.27 times from 1,000 to 8,000")
    assert "50.0 ms − 1.0 ms per sequence" in benchmark.growth_text(
        Growth("step", "sequence", 0.05, -0.001, 1.0, 1.0, 8.0, 2)
    )


def test_a_table_has_the_columns_that_its_rows_fill() -> None:
    table = benchmark.columns(steps("float32", 8128, 8)[:1])
    assert list(table) == ["side", "dtype", "tokens", "time", "throughput", "ratio", "kept", "limit by bandwidth"]
    assert table["tokens"] == ["8,128"]
    both = benchmark.columns([*steps("float32", 8128, 8), *steps("float32", 8128, 1)])
    assert both["batch"] == ["8"] * 5 + ["1"] * 5
    assert "throughput" not in benchmark.columns(prefills()), "a prefill is no step"
    assert benchmark.columns([]) == {}


def test_what_was_not_measured_is_told_once_with_its_sizes() -> None:
    assert benchmark.missing_texts(ROWS) == [f"{QUANTO}: its package is not installed (quanto) (at every size)"]
    [row] = [row for row in steps("bfloat16", 4096, 8) if row.side == FULL]
    absent = Row(FULL, "float32", 8128, 32, note="too large")
    assert benchmark.missing_texts([row, absent]) == [f"{FULL}: too large (float32, 8,128 tokens, batch 32)"]


def test_peers_that_are_faster_are_named() -> None:
    assert benchmark.has_peers(made_benchmark())
    assert not benchmark.has_peers(Benchmark())
    told = benchmark.ahead_texts(made_benchmark())
    assert len(told) == 12
    assert told[0] == (
        f"decode: {KVPRESS}, float32, 1,024 tokens, batch 1: 0.90 [0.88, 0.92] times as long as ours, half lazy"
    )
