from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from lighttransfer_core.frontier.summary import Estimate
from lighttransfer_core.types import LayerScores
from tests.viz.conftest import make_scores
from tests.viz.test_benchmark import benchmark_charts
from tests.viz.test_rankings import ranking_charts
from tests.viz.test_scale import scale_charts
from viz import comparison, frontier, kv, laziness, roles
from viz.chart import Chart

CONTEXTS = [1024, 2048, 4096]


def all_charts() -> list[Chart]:
    scores = make_scores()
    return [
        laziness.shares(scores),
        laziness.shares(scores, "depth", "Lazy ratio"),
        laziness.head_map(scores),
        laziness.query_map(scores),
        kv.over_context(CONTEXTS, [10, 20, 40], [5, 5, 5], 900, 2048),
        comparison.kl_over_tokens({(0, "b"): [0.0, 0.1, 0.3], (1, "b"): [0.0]}),
        comparison.latency({(0, "a"): [0.0, 0.01, 0.02], (1, "a"): [0.0, 0.01]}),
        *scale_charts(),
        *benchmark_charts(),
        *ranking_charts(),
        frontier_chart(),
    ]


def marks(*means: float) -> list[frontier.Mark]:
    shares = (0.0, 0.5, 1.0)
    return [
        frontier.Mark(share, kv_bytes, Estimate(mean, mean - 0.1, mean + 0.2, 50))
        for share, kv_bytes, mean in zip(shares, (4000, 2000, 500), means, strict=True)
    ]


def test_random_orders_make_a_band_where_each_was_tried() -> None:
    """As where sweeps with other shares are taken together."""
    chance = [[marks(0.9, 0.3, 0.1)[0], marks(0.9, 0.3, 0.1)[2]], marks(0.9, 0.2, 0.2)]
    chart = frontier.frontier([frontier.Line("lazy_ratio", marks(0.9, 0.2, 0.1))], chance, frontier.SCORE, "all tasks")
    low, high, _ = chart.figure.data
    assert (list(low.x), list(low.y), list(high.y)) == ([1.0, 0.5, 0.125], [0.9, 0.2, 0.1], [0.9, 0.2, 0.2])


def frontier_chart() -> Chart:
    lines = [
        frontier.Line("residual_change_worst", marks(0.9, 0.8, 0.1)),
        frontier.Line("lazy_ratio", marks(0.9, 0.2, 0.1)),
    ]
    chance = [marks(0.9, 0.3, 0.1), marks(0.9, 0.1, 0.1), marks(0.9, 0.2, 0.1)]
    return frontier.frontier(lines, chance, frontier.SCORE, "all tasks, 1,536 tokens")


def test_a_plan_is_one_dot_beside_the_rankings() -> None:
    own = frontier.Line("Your plan", marks(0.7, 0.0, 0.0)[:1])
    chart = frontier.frontier(
        [frontier.Line("lazy_ratio", marks(0.9, 0.2, 0.1))], [], frontier.SCORE, "all tasks", own, full_bytes=8000
    )
    line, dot = chart.figure.data
    assert (dot.name, list(dot.x), list(dot.y), dot.mode) == ("Your plan", [0.5], [0.7], "markers")
    assert dot.marker.symbol != line.marker.symbol
    np.testing.assert_allclose(dot.error_y.array, 0.2)
    assert chart.rows[-1][:4] == ("Your plan", 0.0, 4000, 0.7)
    assert "Your plan: 0.70" in chart.alt


def test_the_frontier_has_a_line_per_ranking_and_the_band_of_chance() -> None:
    chart = frontier_chart()
    low, high, first, second = chart.figure.data
    assert list(low.y) == [0.9, 0.1, 0.1]
    assert list(high.y) == [0.9, 0.3, 0.1]
    assert list(first.x) == [1.0, 0.5, 0.125]
    assert list(second.y) == [0.9, 0.2, 0.1]
    assert first.line.dash != second.line.dash
    assert first.marker.symbol != second.marker.symbol
    np.testing.assert_allclose(first.error_y.array, 0.2)
    np.testing.assert_allclose(first.error_y.arrayminus, 0.1)
    assert chart.rows[1] == ("residual_change_worst", 0.5, 2000, 0.8, pytest.approx(0.7), pytest.approx(1.0), 50)


@pytest.mark.parametrize("chart", all_charts(), ids=lambda chart: chart.name)
def test_every_chart_names_its_axes_and_speaks_for_itself(chart: Chart) -> None:
    layout = chart.figure.layout
    assert layout.xaxis.title.text
    assert layout.yaxis.title.text
    assert all(trace.hovertemplate or trace.hoverinfo == "skip" for trace in chart.figure.data)
    assert len(chart.alt) > 40
    assert re.search(r"\d", chart.alt), "the alternative text holds no number"
    assert re.fullmatch(r"[a-z-]+", chart.name)


@pytest.mark.parametrize("chart", all_charts(), ids=lambda chart: chart.name)
def test_every_chart_travels_as_json_and_as_csv(chart: Chart) -> None:
    json.loads(chart.figure.to_json())
    rows = list(csv.reader(io.StringIO(chart.csv())))
    assert tuple(rows[0]) == chart.columns
    assert len(rows) == len(chart.rows) + 1
    assert {len(row) for row in rows} == {len(chart.columns)}


def test_shares_stack_to_one_in_the_order_of_the_ranking(scores: LayerScores) -> None:
    chart = laziness.shares(scores)
    bars = [trace for trace in chart.figure.data if trace.type == "bar"]
    np.testing.assert_allclose(sum(np.asarray(bar.y) for bar in bars), 1.0)
    assert [int(name) for name in bars[0].x] == [*scores.ranking(), 2], "a layer that cannot be ranked stands last"
    assert [bar.marker.color for bar in bars] == [roles.SINK.colour, roles.RECENT.colour, roles.REST.colour]


def test_shares_show_a_learned_sink_where_a_model_has_one(scores: LayerScores) -> None:
    data = {**scores.to_dict(), "learned_sink": [0.1] * 6, "rest": list(scores.rest - 0.1)}
    bars = [trace for trace in laziness.shares(LayerScores.from_dict(data)).figure.data if trace.type == "bar"]
    assert len(bars) == 4
    np.testing.assert_allclose(sum(np.asarray(bar.y) for bar in bars), 1.0)


def test_scores_have_an_axis_of_their_own_and_outside_zero_to_one_they_are_not_drawn(scores: LayerScores) -> None:
    built = laziness.shares(scores).figure
    (marks,) = (trace for trace in built.data if trace.type != "bar")
    assert (marks.yaxis, built.layout.yaxis2.title.text, built.layout.yaxis2.overlaying) == ("y2", "Score", "y")
    assert built.layout.yaxis2.range == built.layout.yaxis.range, "one ruler serves both"
    data = {**scores.to_dict(), "values": [-3.0, 1, 2, 3, 4, 5]}
    without = laziness.shares(LayerScores.from_dict(data)).figure
    assert all(trace.type == "bar" for trace in without.data)
    assert "yaxis2" not in without.layout.to_plotly_json()


def test_depth_order_is_the_model_s(scores: LayerScores) -> None:
    assert laziness.layer_order(scores, "depth") == [0, 1, 2, 3, 4, 5]


def test_maps_carry_exact_values(scores: LayerScores) -> None:
    chart = laziness.head_map(scores)
    np.testing.assert_allclose(np.asarray(chart.figure.data[0].z), scores.per_head, atol=1e-6)
    assert chart.rows[4][1:] == tuple(scores.per_head[4])


def test_query_map_names_tokens_where_it_knows_them(scores: LayerScores) -> None:
    words = ["x", "the", "quick", "<b>fox</b>", "jumps"]
    heat = laziness.query_map(scores, tokens=words).figure.data[0]
    assert list(heat.customdata[0]) == ["the", "quick", "&lt;b&gt;fox&lt;/b&gt;", "jumps"]
    assert list(heat.x) == [896, 897, 898, 899]
    assert laziness.query_map(scores, tokens=["too", "few"]).figure.data[0].customdata is None


def test_kv_chart_marks_the_prompt_and_the_last_position() -> None:
    chart = kv.over_context(CONTEXTS, [10, 20, 40], [5, 5, 5], 900, 2048)
    assert [shape.x0 for shape in chart.figure.layout.shapes] == [900, 2048]
    assert "88% less" in chart.alt
    assert kv.over_context(CONTEXTS, [10, 20, 40], [5, 5, 5], None, 8192).figure.layout.shapes == ()


def test_the_name_of_a_rule_keeps_clear_of_the_vertical_axis() -> None:
    built = kv.over_context([2048, 131_072], [10, 20], [5, 5], 2877, 65_536).figure
    assert [name.xanchor for name in built.layout.annotations] == ["left", "right"]


def test_bytes_are_drawn_in_the_unit_that_fits_them() -> None:
    built = kv.over_context(CONTEXTS, [2**40, 2**41, 2**42], [2**40] * 3, None, 8192).figure
    assert built.layout.yaxis.title.text == "KV cache (TiB)"
    assert list(built.data[0].y) == [1.0, 2.0, 4.0]


def test_latency_leaves_out_the_prefill_s_own_token() -> None:
    chart = comparison.latency({(0, "a"): [9.0, 0.01, 0.02], (1, "a"): [9.0, 0.03]})
    assert list(chart.figure.data[0].y) == [10.0, 20.0]
    assert chart.rows == ((1, 0.01, 0.03), (2, 0.02, None))
    assert "second, A median 30.0 ms" in chart.alt


def test_sessions_that_are_laid_over_each_other_differ_in_more_than_colour() -> None:
    first, second = comparison.kl_over_tokens({(0, "b"): [0.1], (1, "b"): [0.2]}).figure.data
    assert first.line.dash != second.line.dash
    assert first.marker.symbol != second.marker.symbol


def test_median() -> None:
    assert comparison.median([]) == 0.0
    assert comparison.median([3, 1, 2]) == 2
    assert comparison.median([1, 2, 3, 4]) == 2.5
