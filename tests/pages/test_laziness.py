"""The Laziness page's views: sensitivity, the replay of the heap, many prompts, and sets of scores beside others."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lighttransfer_core.agreement import Agreement, agreement
from lighttransfer_core.errors import InvalidPromptError, PrefillGoneError, PrefillMismatchError
from lighttransfer_core.heap import replay
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.score_sets import ScoreSet
from lighttransfer_core.selection import RECOMMENDED_METRIC, aggregate_scores, plan_from_scores, plan_from_votes
from lighttransfer_core.service.answers import PromptScores
from lighttransfer_core.service.specs import ScoreSpec
from pages.parts import calibration_prompts, evidence, laziness_prompt, score_sets
from pages.parts.defaults import default_recipe
from pages.parts.prompts import demo_prompts
from pages.parts.results import Summary, record
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components
from tests.viz.conftest import make_scores

VIEWS = ["Sensitivity", "Heap", "Over prompts", "Beside others"]


class File(io.BytesIO):
    """An uploaded file."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.name = name


def recorded_agreement() -> Agreement:
    """Of the recorded run's scores before the question with those after it."""
    summary = Summary.of(record()["prefill"])
    assert summary.before.scores is not None
    return agreement(summary.scores, summary.before.scores.scores())


def test_a_score_that_is_not_the_average_share_says_so() -> None:
    scores = Summary.of(record()["prefill"]).scores
    assert "not that average" in laziness_prompt._not_by_the_mean(scores)
    assert laziness_prompt._not_by_the_mean(replace(scores, values=scores.sink + scores.recent)) == ""


def charts(app: AppTest) -> dict[str, dict[str, Any]]:
    return {chart["name"]: chart for chart in components(app, "chart")}


def ran(open_page: OpenPage, **address: str) -> AppTest:
    """A view over a prefill of now."""
    app = open_page("laziness", **address)
    app.button(key="run").click().run()
    assert not app.exception
    return app


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_stands_before_anything_has_run(open_page: OpenPage, fake: FakeBackend, view: str) -> None:
    app = open_page("laziness", view=view)
    assert app.session_state.view == view
    assert not app.error
    assert [spec.kind for spec in fake.started] in ([], ["load"])


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_stands_while_the_backend_is_away(open_page: OpenPage, fake: FakeBackend, view: str) -> None:
    fake.up = False
    assert not open_page("laziness", view=view).error


def test_what_is_known_of_the_ranking_on_this_model_is_told(
    open_page: OpenPage, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = words(open_page("laziness", recent=500))
    assert "Measured on smollm2 at window 4 + 508: with so many lazy layers every task keeps at least 90%" in told
    for row in (
        "| in the prompt | 1,536 | 75% | 94% [89%, 98%], niah_single_2, 100 prompts |",
        "| in the prompt | 4,096 | 50% | 97% [91%, 103%], passkey, 150 prompts |",
        "| of the cut cache | 1,536 | 50% | 99% [96%, 100%], niah_single_2, 75 prompts |",
    ):
        assert row in told
    paper = words(open_page("laziness", recent=200, metric="lazy_ratio"))
    assert "at window 4 + 252" in paper
    assert "| in the prompt | 1,536 | fewer than 7 layers | " in paper, "the smallest share tried is too many"
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path)
    assert "has not been measured yet" in words(open_page("laziness"))


def test_a_view_that_does_not_exist_gives_way_to_the_first(open_page: OpenPage, fake: FakeBackend) -> None:
    assert "laziness-layers" in charts(open_page("laziness", view="nonsense", vary="nonsense"))


def test_both_places_of_the_question_are_told_and_drawn(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness")
    assert "first 2,851 of 2,877 tokens" in words(app)
    expected = recorded_agreement()
    assert f"**ρ = {expected.spearman:.2f}**" in words(app)
    assert f"**{expected.shared} of its 15**" in words(app)
    traces = {trace["name"] for trace in json.loads(charts(app)["laziness-layers"]["figure"])["data"]}
    assert "Score before the question" in traces


@pytest.mark.parametrize("view", ["This prompt", "Sensitivity"])
def test_a_prompt_without_a_question_is_told(open_page: OpenPage, fake: FakeBackend, view: str) -> None:
    fake.no_question = "It has no blank line."
    app = ran(open_page, view=view)
    assert "It has no blank line" in words(app).replace("\\", "")
    assert not app.error


def test_a_beginning_that_fits_the_window_is_told(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page, recent="2850")
    assert "2,851 tokens, and the window keeps 2,854" in words(app).replace("\\", "")
    app.segmented_control(key="view").set_value("Sensitivity").run()
    assert "Empty columns: up to its question the prompt fits the window" in words(app)


def test_sensitivity_asks_for_one_setting_at_a_time_around_the_sidebar_s(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = ran(open_page, view="Sensitivity", recent="100")
    aware, agnostic = fake.asked
    assert [one.window.recent for one in aware] == [60, 100, 124, 252, 508, 1020, 2044]
    assert {(one.window.sink, one.last, one.metric) for one in aware} == {(4, 32, RECOMMENDED_METRIC)}
    assert [(one.window, one.question) for one in agnostic] == [(one.window, "agnostic") for one in aware]
    chart = charts(app)["laziness-sensitivity"]
    assert [row[:2] for row in chart["rows"][2:4]] == [[100, "in"], [100, "out"]]
    assert chart["rows"][2][2:5] == [pytest.approx(1.0), 15, 15], "the setting of now beside itself"
    assert "From **60** to **2,044** recent tokens" in words(app)
    app.segmented_control(key="vary").set_value("Last queries").run()
    assert [one.last for one in fake.asked[2]] == [1, 4, 8, 16, 32, 64, 128]
    app.segmented_control(key="vary").set_value("Sink tokens").run()
    assert [one.window.sink for one in fake.asked[4]] == [0, 1, 2, 4, 8, 16]
    assert len(fake.asked) == 6
    app.run()
    assert len(fake.asked) == 6, "what was answered is not asked again"


def test_windows_that_the_prompt_would_fit_are_left_out_and_named(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page, view="Sensitivity", sink="900")
    assert "would fit the window: 2,044" in words(app)


def test_a_prefill_that_made_room_is_told_and_can_be_run_again(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.gone = PrefillGoneError("The prefill has left.")
    app = ran(open_page, view="Sensitivity")
    assert "The prefill has left" in app.error[0].value
    fake.gone = None
    app.button(key="run").click().run()
    assert not app.error
    assert "laziness-sensitivity" in charts(app)


def test_queries_that_were_not_kept_before_the_question_are_told(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page, view="Sensitivity", keep="last 600")
    fake.gone = PrefillMismatchError("These queries were not kept.")
    app.segmented_control(key="vary").set_value("Last queries").run()
    assert "These queries were not kept" in app.error[0].value


def test_the_replay_holds_every_moment_of_the_recorded_run(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness", view="Heap", full="20")
    (shown,) = components(app, "heap_replay")
    summary = Summary.of(record()["prefill"])
    moments = replay(summary.spec, summary.scores, 0.2)
    assert shown["room"] == 6
    assert shown["moments"] == [moment.to_dict() for moment in moments]
    assert shown["full"][-1] == sum(summary.kv_bytes_per_layer)
    assert [layer["score"] for layer in shown["layers"]] == summary.scores.values.tolist()
    assert "never holds more than **38.1 MiB**" in words(app)
    app.slider(key="full").set_value(100).run()
    (shown,) = components(app, "heap_replay")
    assert {moment["kind"] for moment in shown["moments"]} == {"push"}
    assert shown["full"] == [sum(moment["kv_bytes"]) for moment in shown["moments"]]


def test_a_ranking_that_looks_at_no_prompt_is_named_beside_its_replay(open_page: OpenPage, fake: FakeBackend) -> None:
    assert "does not look at the prompt" in words(ran(open_page, view="Heap", metric="random_0"))


@pytest.mark.parametrize("value", ["nonsense", "-5", "101", "1e9"])
def test_an_absurd_share_gives_way(open_page: OpenPage, fake: FakeBackend, value: str) -> None:
    assert components(open_page("laziness", view="Heap", full=value), "heap_replay")[0]["room"] == 15


@pytest.mark.parametrize("view", ["Sensitivity", "Heap", "Beside others"])
def test_a_prompt_that_fits_the_window_is_ranked_in_no_view(open_page: OpenPage, fake: FakeBackend, view: str) -> None:
    app = ran(open_page, view=view, recent="60000")
    assert "nothing to rank" in words(app) or "No scores are chosen" in words(app)
    assert not app.error


def scored(open_page: OpenPage, fake: FakeBackend, **address: Any) -> tuple[AppTest, list[PromptScores]]:
    """The view over several prompts, once they are scored."""
    app = open_page("laziness", view="Over prompts", **address)
    app.button(key="score_prompts").click().run()
    assert not app.exception
    result = fake.runs[f"token-{len(fake.started)}"].result
    assert result is not None
    return app, [PromptScores.from_dict(one) for one in result["prompts"]]


def test_several_prompts_become_one_plan_by_their_mean_and_by_votes(open_page: OpenPage, fake: FakeBackend) -> None:
    app, found = scored(open_page, fake, recent="100")
    spec = fake.started[-1]
    assert isinstance(spec, ScoreSpec)
    assert spec.prompts == tuple(prompt.hash for prompt in demo_prompts().values())
    assert (spec.window.recent, spec.last, spec.metric) == (100, 32, RECOMMENDED_METRIC)
    assert set(spec.prompts) <= set(fake.prompts), "the texts go first"
    scores = [one.aware.scores() for one in found]
    by_mean, by_votes = plan_from_scores(aggregate_scores(scores)), plan_from_votes(scores)
    assert f"layers {format_layers(by_mean.lazy_layers)} stream" in words(app)
    assert "Over 4 prompts" in words(app)
    assert [row[0] for row in charts(app)["laziness-prompts"]["rows"]] == [*demo_prompts(), "mean of the scores"]
    app.segmented_control(key="plan_by").set_value("votes").run()
    assert f"**Static plan by votes**: layers {format_layers(by_votes.lazy_layers)}" in words(app)
    app.button(key="use_static").click().run()
    assert app.session_state.plan == format_layers(by_votes.lazy_layers)
    before = [one.before.scores.scores() for one in found if one.before.scores is not None]
    app.segmented_control(key="asked").set_value("agnostic").run()
    assert format_layers(plan_from_votes(before).lazy_layers) in words(app)


def test_what_is_known_of_one_order_for_all_prompts_is_told(open_page: OpenPage, fake: FakeBackend) -> None:
    app, _ = scored(open_page, fake, recent="252", metric="reach_effect")
    assert "One order for all prompts, by the mean over calibration prompts. Measured on smollm2" in words(app)
    other, _ = scored(open_page, fake, recent="252", metric="output_change")
    assert "One order for all prompts" not in words(other)


def test_which_prompts_is_in_the_address(open_page: OpenPage, fake: FakeBackend) -> None:
    app, _ = scored(open_page, fake, set=["needle", "code"])
    assert fake.started[-1].prompts == (demo_prompts()["needle"].hash, demo_prompts()["code"].hash)  # type: ignore[union-attr]
    assert "2 prompts" in words(app)


def test_texts_of_another_visit_are_left_out_of_the_set_and_named(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness", view="Over prompts", set=["needle", "code", "tiny.txt (a948)"])
    assert app.multiselect(key="set").value == ["needle", "code"]
    assert re.search(r"asks for set “tiny.* it is left out", words(app))


def test_prompts_without_a_ranking_are_left_out_and_named(open_page: OpenPage, fake: FakeBackend) -> None:
    app, _ = scored(open_page, fake)
    app.segmented_control(key="asked").set_value("agnostic").run()
    fake.no_question = "It has no blank line."
    app, _ = scored(open_page, fake, recent="101")
    app.segmented_control(key="asked").set_value("agnostic").run()
    assert "It has no blank line" in app.warning[0].value.replace("\\", "")
    assert "At least 2 prompts with a ranking" in words(app)
    app, _ = scored(open_page, fake, recent="60000")
    assert "tokens fit the window" in words(app)


def test_one_prompt_is_not_enough(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness", view="Over prompts")
    app.multiselect(key="set").set_value(["needle"]).run()
    assert "Choose at least 2 prompts" in words(app)


def test_a_run_over_prompts_that_fails_says_so_and_can_be_run_again(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "failed"
    app = open_page("laziness", view="Over prompts")
    app.button(key="score_prompts").click().run()
    assert "It broke" in app.error[0].value
    fake.finish = lambda spec: "running"
    app.button(key="score_prompts").click().run()
    assert components(app, "run_progress")[0]["token"] == f"token-{len(fake.started)}"


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.txt", b"One text.\n\nWhat?", ["One text.\n\nWhat?"]),
        ("b.jsonl", b'{"text": "one"}\n\n{"text": "two", "more": 1}\n', ["one", "two"]),
    ],
)
def test_texts_of_files(name: str, data: bytes, texts: list[str]) -> None:
    found = calibration_prompts.read_texts(name, data)
    assert [text for _, text in found] == texts
    assert len({label for label, _ in found}) == len(found)
    assert all(label.startswith(name) for label, _ in found)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.txt", b"  ", "empty"),
        ("a.txt", b"x" * 1_000_001, "1,000,001 characters"),
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b"nonsense", "Line 1 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n[1]', "Line 2 has no text"),
        ("a.jsonl", b'{"text": 3}', "Line 1 has no text"),
        ("a.jsonl", b'{"text": "x"}\n' * 65, "65 lines"),
        ("a.jsonl", b"[" * 100_000, "not JSON"),
    ],
)
def test_files_without_texts_are_refused(name: str, data: bytes, said: str) -> None:
    with pytest.raises(InvalidPromptError, match=said):
        calibration_prompts.read_texts(name, data)


def test_uploaded_texts_are_chosen_and_scored(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness", view="Over prompts")
    app.file_uploader(key="set_files").set_value([("<b>mine</b>.txt", b"My text.\n\nWhat?", "text/plain")]).run()
    assert not app.exception
    assert app.multiselect(key="set").value[-1].startswith("<b>mine</b>.txt (")
    app.button(key="score_prompts").click().run()
    assert "My text.\n\nWhat?" in fake.prompts.values()
    figure = json.loads(charts(app)["laziness-prompts"]["figure"])
    assert not any("<b>mine" in text for text in figure["layout"]["xaxis"]["ticktext"])
    app.file_uploader(key="set_files").set_value([("bad.txt", b"\xff\xfe\x00", "text/plain")]).run()
    assert "In bad.txt: The file is not UTF-8" in app.error[0].value.replace("\\", "")


def test_sets_of_this_visit_are_drawn_over_each_other(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page, view="Beside others")
    chart = charts(app)["laziness-beside"]
    assert len(json.loads(chart["figure"])["data"]) == 2
    app.number_input(key="recent").set_value(100).run()
    names = app.multiselect(key="beside").value
    assert len(names) == 4
    assert "window 4 + 100" in names[2]
    (table,) = app.dataframe
    assert list(table.value["question"]) == ["aware", "agnostic"] * 2
    expected = recorded_agreement()
    assert table.value.loc[0, "ρ with 2"] == f"{expected.spearman:.2f}, {expected.shared} of 15"
    app.segmented_control(key="drawn").set_value("score").run()
    assert "Score of each layer in 4 sets" in charts(app)["laziness-beside"]["title"]
    app.multiselect(key="beside").set_value([]).run()
    assert "No scores are chosen" in words(app)


def test_scores_that_are_saved_can_be_opened_and_lie_on_themselves(open_page: OpenPage, fake: FakeBackend) -> None:
    recipe, summary = default_recipe(), Summary.of(record()["prefill"], "then")
    saved = score_sets.score_set(recipe, summary, summary.scores, "aware").to_json().encode()
    assert recipe.prompt.hash in ScoreSet.from_bytes(saved).made["prompt"]
    other = ScoreSet("two layers <b>more</b>", make_scores(layers=8)).to_json().encode()
    app = open_page("laziness", view="Beside others")
    app.file_uploader(key="score_files").set_value(
        [("mine.json", saved, "application/json"), ("other.json", other, "application/json")]
    ).run()
    assert not app.exception
    assert not app.error
    assert len(app.multiselect(key="beside").value) == 4
    (table,) = app.dataframe
    assert table.value.loc[2, "ρ with 1"] == "1.00, 15 of 15"
    assert table.value.loc[3, "ρ with 1"] == "other layers"
    figure = json.loads(charts(app)["laziness-beside"]["figure"])
    assert figure["layout"]["xaxis"]["title"]["text"].startswith("Depth")
    assert not any("<b>" in trace["name"] for trace in figure["data"])


def test_files_without_scores_are_named_and_the_others_stay(open_page: OpenPage, fake: FakeBackend) -> None:
    good = ScoreSet("six layers", make_scores()).to_json().encode()
    flat = ScoreSet("flat", make_scores(tokens=100)).to_json().encode()
    app = open_page("laziness", view="Beside others")
    files = [("good.json", good), ("flat.json", flat), ("bad.json", b"{}")]
    app.file_uploader(key="score_files").set_value([(name, data, "application/json") for name, data in files]).run()
    said = "\n".join(error.value for error in app.error).replace("\\", "")
    assert "In flat.json: The scores rank no layer" in said
    assert "In bad.json: The file holds no scores" in said
    assert any(name.startswith("six layers") for name in app.multiselect(key="beside").value)
