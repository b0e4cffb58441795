from __future__ import annotations

import pytest

from lighttransfer_core.cost.measured import Latency
from lighttransfer_core.cost.roofline import Throughput
from viz import roles, scale
from viz.chart import Chart
from viz.scale import Mark

CONTEXTS = [1024, 2048, 4096]
LATENCY = Latency(0.02, 0.015, 0.03, 9)
MARKS = [Mark.of_latency(2048, False, LATENCY), Mark.of_latency(2048, True, Latency(0.01, 0.01, 0.01, 1))]
FULL = [Throughput(4, 0.1), Throughput(2, 0.1), None]
PLAN = [Throughput(6, 0.1), Throughput(4, 0.1), Throughput(2, 0.1)]


def scale_charts() -> list[Chart]:
    return [
        scale.memory(CONTEXTS, [10, 20, 40], [5, 5, 5], [Mark(2048, True, 5)], 2048, 3),
        scale.latency(CONTEXTS, [0.01, 0.02, 0.04], [0.01, 0.01, 0.01], MARKS, 8192, 1),
        scale.latency(CONTEXTS, [0.01, 0.02, 0.04], [0.01, 0.01, 0.01], [], 8192, 1),
        scale.throughput(CONTEXTS, FULL, PLAN, [Mark(2500, True, 33.0)], 2048, 2**30),
        scale.throughput(CONTEXTS, [None] * 3, PLAN, [], 8192, 2**30),
    ]


def test_lines_are_called_predicted_or_formula_and_marks_measured() -> None:
    for chart in scale_charts():
        for trace in chart.figure.data:
            word = "measured" if trace.mode == "markers" else "predicted"
            assert word in trace.name or (trace.mode == "lines" and trace.name.endswith("formula"))


def test_latency_marks_are_medians_with_their_quartiles_in_milliseconds() -> None:
    chart = scale_charts()[1]
    full, plan = chart.figure.data[2:]
    assert (list(full.x), list(full.y)) == ([2048], [20.0])
    assert (full.error_y.array[0], full.error_y.arrayminus[0]) == pytest.approx((10.0, 5.0))
    assert (full.error_y.visible, plan.error_y.visible) == (True, False)
    assert (full.marker.symbol, plan.marker.symbol) == (roles.FULL.symbol, roles.LAZY.symbol)


def test_rows_keep_predicted_and_measured_apart() -> None:
    chart = scale_charts()[1]
    assert chart.rows[1] == (2048, 0.02, 0.01, 0.02, 0.01)
    assert chart.rows[0][3:] == (None, None)
    assert all("predicted" in name or "measured" in name for name in chart.columns[1:])
    memory = scale_charts()[0]
    assert memory.rows[1] == (2048, 20, 5, None, 5)


def test_throughput_is_tokens_per_second_and_stops_where_no_sequence_fits() -> None:
    chart = scale_charts()[3]
    assert list(chart.figure.data[0].y) == [40.0, 20.0, None]
    assert chart.figure.data[0].customdata[2] == "no sequence fits"
    assert "2.00 times" in chart.alt, "the ratio at the longest context where both sides fit"
    assert chart.rows[2] == (2500, None, None, None, 33.0, None, None)
    assert chart.rows[3] == (4096, None, 20.0, None, None, 0, 2)
    assert [shape.x0 for shape in chart.figure.layout.shapes] == [2048]
    assert "not one sequence" in scale_charts()[4].alt


def test_a_mark_at_the_longest_context_is_not_cut() -> None:
    for chart in scale_charts():
        assert chart.figure.layout.xaxis.range[1] > CONTEXTS[-1]
