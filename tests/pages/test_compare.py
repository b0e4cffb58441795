"""The Compare page: which comparison it asks for, and what it hands to the live panel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lighttransfer_core.service.specs import CompareSpec, prompt_hash
from pages.parts import results
from pages.parts.prompts import Prompt
from pages.parts.runs import Held
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components


def last(fake: FakeBackend) -> CompareSpec:
    spec = fake.started[-1]
    assert isinstance(spec, CompareSpec)
    return spec


def layers(spec: CompareSpec) -> list[tuple[int, ...]]:
    return [lane.plan.lazy_layers for lane in spec.lanes]


def test_it_starts_the_plan_of_the_address(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4", tokens="12")
    assert not components(app, "live_panel"), "the recorded run is of another plan"
    app.button(key="run_compare").click().run()
    assert (layers(last(fake)), last(fake).max_new_tokens) == ([(1, 2, 3, 4)], 12)
    (props,) = components(app, "live_panel")
    assert (props["token"], props["events"], props["changeable"]) == (f"token-{len(fake.started)}", None, True)
    assert "Expected answer" in words(app)


def test_the_default_address_replays_the_recorded_run(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare")
    (props,) = components(app, "live_panel")
    assert props["token"] is None
    assert [event["kind"] for event in props["events"]].count("begin") == 1
    assert "Recorded run" in words(app)


def test_an_answer_that_was_cut_is_told_from_one_that_is_wrong(
    open_page: OpenPage, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prompt, "answered", lambda _prompt, _text: False)
    tokens = len(results.record()["session"]["result"]["lanes"]["a"]["answers"][0]["tokens"])
    for limit, said in (
        (tokens, f"A had not given it after {tokens} tokens, the limit"),
        (tokens + 1, "A does not give it"),
    ):
        app = open_page("compare", plan="1-4", tokens=str(limit))
        app.button(key="run_compare").click().run()
        assert said in words(app)


def test_a_lane_that_reads_the_other_s_text_is_not_said_to_answer(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4", follow="b", temperature="0.5", sampling_seed="3")
    app.button(key="run_compare").click().run()
    assert "A gives it; B reads A’s text." in words(app)
    assert "drawn at temperature 0.5, with seed 3" in words(app)
    assert "drawn" not in words(open_page("compare", plan="1-4"))


def test_more_plans_followers_and_sampling_are_in_the_address(open_page: OpenPage, fake: FakeBackend) -> None:
    open_page().button(key="run").click().run()
    app = open_page("compare", also="all; random-3", follow="c", temperature="0.7", sampling_seed="5")
    app.button(key="run_compare").click().run()
    spec = last(fake)
    assert layers(spec)[1] == tuple(range(30))
    assert len(layers(spec)[2]) == 15
    assert [lane.follow for lane in spec.lanes] == [False, True, False]
    assert (spec.temperature, spec.seed) == (0.7, 5)


def test_what_is_no_plan_is_said_and_nothing_starts(open_page: OpenPage, fake: FakeBackend) -> None:
    for also, message in (("1-99", "do not exist"), ("all; none; half", "at most 2"), ("<b>x</b>", "is not a layer")):
        app = open_page("compare", also=also)
        assert message in app.error[0].value
        assert not components(app, "live_panel")


def test_a_further_question_starts_the_conversation_with_it(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4")
    app.button(key="run_compare").click().run()
    app.text_input(key="question").set_value(" And for hotels? ")
    ask = next(button for button in app.button if button.label == "Ask")
    ask.click().run()
    assert last(fake).turns == (prompt_hash("And for hotels?"),)
    assert fake.prompts[prompt_hash("And for hotels?")] == "And for hotels?"
    assert app.query_params["questions"] == prompt_hash("And for hotels?")
    app.button(key="forget_questions").click().run()
    assert "questions" not in app.query_params


def test_a_rerun_that_left_the_browser_earlier_takes_no_change_of_the_address_back(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = open_page("compare", plan="1-4")
    app.button(key="run_compare").click().run()
    app.text_input(key="question").set_value("And for hotels?")
    next(button for button in app.button if button.label == "Ask").click().run()
    for _stale in range(2):
        del app.query_params["questions"]
        app.run()
        assert app.query_params["questions"] == prompt_hash("And for hotels?")
    app.run()
    del app.query_params["questions"]  # the browser had it, so this is the visitor's own way back
    app.run()
    assert "questions" not in app.query_params


def test_an_empty_question_asks_nothing(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4")
    app.button(key="run_compare").click().run()
    started = len(fake.started)
    next(button for button in app.button if button.label == "Ask").click().run()
    assert len(fake.started) == started


def test_a_comparison_that_is_done_can_be_run_once_more(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4")
    app.button(key="run_compare").click().run()
    first = last(fake)
    app.button(key="rerun_compare").click().run()
    assert last(fake).copy == app.query_params["copy"] != first.copy
    assert replace(last(fake), copy=first.copy) == first


def test_an_address_with_a_copy_is_a_run_of_its_own(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="1-4", copy="ab12", questions="nonsense,../x")
    app.button(key="run_compare").click().run()
    assert (last(fake).copy, last(fake).turns) == ("ab12", ())


def test_a_replaced_run_says_so(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running" if isinstance(spec, CompareSpec) else "done"
    app = open_page("compare", plan="1-4")
    app.button(key="run_compare").click().run()
    fake.end("cancelled")
    app.run()
    assert "cancelled" in words(app)
    assert app.button(key="run_compare").label == "Run again"


def test_what_a_visit_held_is_left_when_its_tab_closes(fake: FakeBackend) -> None:
    held = Held(fake, {"token-1", "token-2"})  # type: ignore[arg-type]
    held.leave()
    assert sorted(fake.left) == ["token-1", "token-2"]
    fake.up = False
    held.leave()
