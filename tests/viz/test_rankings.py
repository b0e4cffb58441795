"""Rankings side by side: what is drawn is what the library says of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lighttransfer_core.agreement import agreement, places
from lighttransfer_core.heap import replay
from lighttransfer_core.selection import plan_from_scores
from lighttransfer_core.types import LayerScores, ModelSpec
from tests.viz.conftest import make_scores
from viz import laziness, rankings, roles, score_overlay
from viz.chart import Chart
from viz.components.heap_replay import replay_props
from viz.rankings import Column, Setting
from viz.score_overlay import Line


def moved(scores: LayerScores, by: int) -> LayerScores:
    return dataclasses.replace(scores, values=np.roll(scores.values, by))


def setting(value: int, scores: LayerScores | None, before: LayerScores | None) -> Setting:
    now, sides = make_scores(), (scores, before)
    return Setting(value, value == 252, *sides, *(None if one is None else agreement(now, one) for one in sides))


def settings() -> list[Setting]:
    scores = make_scores()
    return [
        setting(60, moved(scores, 1), scores),
        setting(252, scores, moved(scores, 2)),
        setting(1020, moved(scores, 3), None),
    ]


def columns() -> list[Column]:
    scores = make_scores()
    return [Column("one", "one", scores), Column("two", "<i>two</i>", moved(scores, 1))]


def ranking_charts() -> list[Chart]:
    scores = make_scores()
    deeper = Line("<b>deeper</b>", make_scores(layers=9))
    return [
        laziness.shares(scores, before=moved(scores, 1)),
        rankings.sensitivity(settings(), "Recent tokens"),
        rankings.over_prompts(columns(), "question-aware"),
        rankings.lazy_share((2, 0, 0, 1, 2, 1), 2, plan_from_scores(scores)),
        score_overlay.overlay([Line("one", scores), Line("two", moved(scores, 1))], "rank"),
        score_overlay.overlay([Line("one", scores), Line("two", moved(scores, 1))], "score"),
        score_overlay.overlay([Line("one", scores), deeper], "rank"),
        score_overlay.overlay([Line("one", scores), deeper], "score"),
    ]


def test_sensitivity_draws_ranks_and_says_how_far_they_agree() -> None:
    chart = rankings.sensitivity(settings(), "Recent tokens")
    heat, numbers = chart.figure.data
    ranks = np.asarray(heat.z)
    assert ranks.shape == (6, 6)
    np.testing.assert_array_equal(ranks[:, 0], places(moved(make_scores(), 1)))
    np.testing.assert_array_equal(ranks[:, 2], places(make_scores()))
    assert np.isnan(ranks[:, 5]).all(), "nothing is known before the question there"
    assert np.isnan(ranks[2, :]).all(), "a layer that cannot be converted has no rank"
    written = dict(zip(zip(numbers.y, numbers.x, strict=True), map(int, numbers.text), strict=True))
    assert written == {(y, x): int(ranks[y, x]) for y, x in np.argwhere(np.isfinite(ranks))}
    labels = list(chart.figure.layout.xaxis.ticktext)
    assert labels[2] == "in<br>1.00<br>100%"
    assert labels[5] == "out<br>–<br>–"
    assert [note.text for note in chart.figure.layout.annotations] == ["60", "<b>252</b> (now)", "1,020"]
    assert chart.rows[2][:5] == (252, "in", pytest.approx(1.0), 2, 2)
    assert chart.rows[5] == (1020, "out", None, None, None, *([None] * 6))
    assert "at 1,020" in chart.alt


def test_every_rank_can_be_read_on_its_fill_in_both_themes() -> None:
    _heat, numbers = rankings.sensitivity(settings(), "Recent tokens").figure.data
    inks = ((numbers.textfont.color, roles.SEQUENTIAL_LIGHT), (numbers.meta["darkInk"], roles.SEQUENTIAL_DARK))
    ranks = [int(text) for text in numbers.text]
    for colours, stops in inks:
        for ink, rank in zip(colours, ranks, strict=True):
            assert roles.contrast(ink, roles.shade(-rank, -max(ranks), -min(ranks), stops)) >= 4.5


def test_frames_lie_around_the_lazy_half_of_each_column() -> None:
    chart = rankings.over_prompts(columns(), "question-aware")
    for place, column in enumerate(columns()):
        assert column.scores is not None
        framed = [
            layer
            for shape in chart.figure.layout.shapes
            if shape.x0 < place < shape.x1
            for layer in range(6)
            if shape.y0 < layer < shape.y1
        ]
        assert tuple(framed) == plan_from_scores(column.scores).lazy_layers
    assert chart.figure.data[0].customdata[0][1] == "&lt;i&gt;two&lt;/i&gt;"
    assert chart.rows[1][0] == "<i>two</i>", "a table shows text as it is"


def test_votes_are_told_apart_by_the_plan() -> None:
    plan = plan_from_scores(make_scores())
    lazy, full = rankings.lazy_share((2, 0, 0, 1, 2, 1), 2, plan).figure.data
    assert tuple(lazy.x) == plan.lazy_layers
    assert sorted([*lazy.x, *full.x]) == list(range(6))
    assert (lazy.marker.color, full.marker.color) == (roles.LAZY.colour, roles.FULL.colour)
    assert dict(zip([*lazy.x, *full.x], [*lazy.y, *full.y], strict=True))[4] == 2


def test_lines_of_the_same_layers_show_ranks_and_spread_scores() -> None:
    scores = make_scores()
    ranks = score_overlay.overlay([Line("one", scores)], "rank").figure
    np.testing.assert_array_equal(ranks.data[0].y, places(scores))
    assert ranks.layout.yaxis.range[0] > ranks.layout.yaxis.range[1], "the laziest is on top"
    spread = np.asarray(score_overlay.overlay([Line("one", scores)], "score").figure.data[0].y)
    known = ~np.isnan(places(scores))
    assert (np.nanmin(spread), np.nanmax(spread)) == (0, 1)
    np.testing.assert_array_equal(np.argsort(spread[known]), np.argsort(scores.values[known]))


def test_models_of_different_depth_lie_over_their_depth() -> None:
    chart = score_overlay.overlay([Line("one", make_scores()), Line("<b>deeper</b>", make_scores(layers=9))], "rank")
    one, deeper = chart.figure.data
    assert (one.x[0], one.x[-1], deeper.x[0], deeper.x[-1]) == (0, 1, 0, 1)
    assert np.nanmin(deeper.y) == 0
    assert np.nanmax(deeper.y) == 1
    assert deeper.name == "&lt;b&gt;deeper&lt;/b&gt;"
    assert one.line.dash != deeper.line.dash
    assert len(chart.rows) == 15


def test_where_all_scores_are_equal_a_line_is_flat() -> None:
    flat = dataclasses.replace(make_scores(), values=np.ones(6))
    assert np.nanmax(np.abs(score_overlay.overlay([Line("flat", flat)], "score").figure.data[0].y)) == 0


def test_the_replay_is_told_what_all_layers_full_would_hold() -> None:
    kinds = ("full", "full", "sliding", "full", "full", "full")
    windows = (None, None, 50, None, None, None)
    sizes = (6, 6, 2, 8, 2048, 97, "float32", 4, "cpu", None, 1, 1)
    spec = ModelSpec("mixed", "llama", *sizes, kinds, windows, {2: "slides by itself"})
    moments, full = (replay(spec, make_scores(), share) for share in (0.4, 1.0))
    props = replay_props(spec, make_scores(), moments, full, 2)
    assert len(props["full"]) == len(props["moments"]) == len(moments)
    row = 2 * 2 * 8 * 4
    told = dict(zip([(moment.kind, moment.layer) for moment in moments], props["full"], strict=True))
    assert told["push", 1] == 2 * 900 * row
    assert told["pass", 2] == 3 * 900 * row
    assert told["slide", 2] == (2 * 900 + 50) * row
    assert props["full"][-1] == (5 * 900 + 50) * row
    assert all(held <= without for held, without in zip(map(_held, props["moments"]), props["full"], strict=True))
    assert props["layers"][2] == {"score": None, "reason": "slides by itself"}


def _held(moment: dict[str, list[int]]) -> int:
    return sum(moment["kv_bytes"])
