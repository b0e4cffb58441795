from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lighttransfer_core.frontier.choice import CheckedPrompt, CheckResult, ChoiceCheck, Ended, findings
from lighttransfer_core.frontier.files import ResultsFile
from lighttransfer_core.frontier.orders import read_orders
from lighttransfer_core.frontier.results import Outcome, read_sweep
from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.service.specs import CheckSpec
from lighttransfer_core.types import ConversionPlan, Window
from pages.parts import check_words, checking, errors, evidence
from pages.parts.evidence import SHIPPED
from pages.parts.results import Summary, record
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components


def test_rules_write_the_plan_into_the_sidebar(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert")
    app.button_group(key="rule").set_value("Laziest").run()
    app.slider(key="k").set_value(3).run()
    laziest = app.text_input(key="plan").value
    assert laziest.count(",") + laziest.count("-") >= 1
    app.button_group(key="rule").set_value("Random").run()
    app.button(key="apply_random").click().run()
    assert app.text_input(key="plan").value != laziest
    for rule, text in (("None", "none"), ("All", "all")):
        app.button_group(key="rule").set_value(rule).run()
        app.button(key="apply_all").click().run()
        assert app.text_input(key="plan").value == text
        assert not app.exception


def test_threshold_rule(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert")
    app.button_group(key="rule").set_value("Threshold").run()
    app.number_input(key="threshold").set_value(2.0).run()
    app.button(key="apply_threshold").click().run()
    assert app.text_input(key="plan").value == "none"


def test_a_bad_plan_in_the_sidebar_leaves_the_grid_usable(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", plan="banana")
    assert "banana" in words(app)
    assert app.get("bidi_component")


def test_an_unranked_prompt_still_converts_at_random(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", recent="60000")
    app.button(key="run").click().run()
    app.button_group(key="rule").set_value("Random").run()
    app.button(key="apply_random").click().run()
    assert "nothing to rank" in words(app)
    assert app.text_input(key="plan").value not in ("half", "none")


def test_plan_upload_takes_layers_and_window(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert")
    plan = b'{"lazy_layers": [1, 2], "window": {"sink": 2, "recent": 99}, "model": null}'
    app.file_uploader(key="plan_file").set_value(("plan.json", plan, "application/json")).run()
    assert app.text_input(key="plan").value == "1-2"
    assert app.number_input(key="recent").value == 99


def test_an_oversized_plan_is_refused_and_nothing_changes(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert")
    before = app.text_input(key="plan").value
    plan = b'{"lazy_layers": [1], "window": {"sink": 2, "recent": 99}}' + b" " * 2**16
    app.file_uploader(key="plan_file").set_value(("plan.json", plan, "application/json")).run()
    assert "a plan has at most 65\\,536" in app.error[0].value
    assert app.text_input(key="plan").value == before


def test_own_text_becomes_the_prompt(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page()
    app.button(key="own_text_open").click().run()
    app.text_area(key="own_text_area").set_value("Some words of my own.")
    app.button(key="own_text_use").click().run()
    assert "5 words" in words(app)
    app.button(key="run").click().run()
    assert fake.started[-1].prompt in fake.prompts


def test_a_file_that_is_no_text_is_gone_when_the_dialog_opens_again(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page()
    app.button(key="own_text_open").click().run()
    app.file_uploader[0].set_value(("bad.txt", b"\xff\x00\x01", "text/plain"))
    app.text_area(key="own_text_area").set_value("Some words of my own.")
    app.button(key="own_text_use").click().run()
    assert "5 words" not in words(app), "the file was refused"
    app.button(key="own_text_open").click().run()
    assert app.file_uploader[0].value is None
    assert not app.error
    app.text_area(key="own_text_area").set_value("Some words of my own.")
    app.button(key="own_text_use").click().run()
    assert "5 words" in words(app)


def test_a_check_asks_for_the_plan_and_the_prompt_at_hand(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", plan="3,5-7", recent="124", rendering="raw")
    app.button(key="run").click().run()
    app.button(key="check").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, CheckSpec)
    assert (spec.check.plan.lazy_layers, spec.check.plan.window) == ((3, 5, 6, 7), Window(4, 124))
    assert (spec.check.length, spec.check.rendering) == (1024, "raw")
    assert spec.prompt in fake.prompts


def test_a_check_is_followed_and_then_told_with_its_intervals(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("convert", plan="3,5-7")
    app.button(key="check").click().run()
    assert components(app, "run_progress")[-1]["token"] == "token-1"
    (strip,) = components(app, "answer_strip")
    assert (strip["token"], strip["prompts"]) == ("token-1", [])
    assert strip["titles"]["passkey"] == "Pass key"
    fake.end("done")
    app.run()
    said = words(app)
    assert "With the question in the prompt **the plan keeps 40 of the 40 answers**" in said
    assert "Asked of the cut cache **the plan keeps 38 of the 40 answers**" in said
    assert "100% [91%, 100%]" in said
    assert "**it holds**" in said
    assert "All layers streaming keep 0% [0%, 9%]" in said
    assert "On 6 passages of your prompt it changes the negative log-likelihood by +0.050" in said
    (strip,) = components(app, "answer_strip")
    assert (strip["token"], len(strip["prompts"])) == (None, 88)
    again = open_page("convert", plan="3,5-7")
    assert "keeps 40 of the 40" in words(again), "remembered, for whoever asks the same"
    assert len(fake.started) == 1


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0, "**it holds**"), (2, "**do not tell**"), (12, "**it does not hold**")]
)
def test_the_verdict_says_which_side_of_the_bar(
    open_page: OpenPage, fake: FakeBackend, lost: int, verdict: str
) -> None:
    fake.answers = lambda seed: (1.0, float(seed >= lost))
    app = open_page("convert", plan="3,5-7")
    app.button(key="check").click().run()
    assert f"keeps {40 - lost} of the 40" in words(app)
    assert verdict in words(app)


def test_a_check_of_another_plan_is_said_to_be_that(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", plan="3,5-7")
    app.button(key="check").click().run()
    app.text_input(key="plan").set_value("9").run()
    said = words(app)
    assert "keeps 40 of the 40" not in said
    assert "Your last check was of other choices (layers 3\\,5\\-7 of smollm2" in said
    assert (
        "kept of the full model’s right answers 100% [91%, 100%] asked in the prompt, 95% [83%, 99%] asked later"
        in said
    )
    fake.finish = lambda spec: "running"
    app.button(key="check").click().run()
    app.text_input(key="plan").set_value("10").run()
    assert "A check of other choices is running: layers 9 of smollm2" in words(app)
    assert components(app, "run_progress")[-1]["token"] == "token-2"


def test_a_cancelled_check_can_be_made_again(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("convert", plan="3")
    app.button(key="check").click().run()
    fake.cancel("token-1")
    app.run()
    assert "The run was cancelled" in words(app)
    assert app.button(key="check").label == "Check my choice"


def test_a_check_that_does_not_tell_goes_on_with_more_prompts(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", plan="3")
    app.button(key="check").click().run()
    assert app.button(key="check_more").label == "Check again, for up to 4 min 0 s"
    fake.finish = lambda spec: "running"
    app.button(key="check_more").click().run()
    first, second = fake.started
    assert isinstance(first, CheckSpec)
    assert isinstance(second, CheckSpec)
    assert second.check == dataclasses.replace(first.check, seconds=240.0)
    assert components(app, "run_progress")[-1]["token"] == "token-2"
    assert "or after 4 minutes" in words(app)
    fake.cancel("token-2")
    app.run()
    assert "The run was cancelled" in words(app)
    assert "keeps 40 of the 40" in words(app), "what was found before is there again"


@pytest.mark.parametrize(
    ("ended", "seconds", "more"),
    [
        ("time", 120.0, (240.0, 0.1)),
        ("narrow", 2400.0, (3600.0, 0.05)),
        ("unable", 120.0, None),
        ("time", 3600.0, None),
    ],
)
def test_more_prompts_are_asked_where_they_can_tell_more(
    ended: Ended, seconds: float, more: tuple[float, float] | None
) -> None:
    check = ChoiceCheck(ConversionPlan((1,), Window(4, 60)), 900, seconds=seconds)
    found = checking.with_more_prompts(CheckResult(check, (), ended, seconds))
    assert (found and (found.seconds, found.width)) == more


def test_a_cancelled_check_of_another_plan_is_said_to_be_that(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    app = open_page("convert", plan="3")
    app.button(key="check").click().run()
    fake.cancel("token-1")
    app.text_input(key="plan").set_value("9").run()
    said = words(app)
    assert "Your last check was of other choices (layers 3 of smollm2" in said
    assert "was cancelled before it said anything" in said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ({"plan": "none"}, "converts no layer, so there is nothing to check"),
        ({"plan": "3", "recent": "9000"}, "loses nothing"),
        ({"plan": "3", "check_tokens": "256"}, "loses nothing"),
        ({"plan": "3", "check_tokens": "600"}, "check at 640 tokens at least"),
        ({"plan": "3", "check_tokens": "9000"}, "check at 8\\,064 tokens at most"),
    ],
)
def test_where_there_is_nothing_to_check_that_is_said(
    open_page: OpenPage, fake: FakeBackend, address: dict[str, str], said: str
) -> None:
    app = open_page("convert", **address)
    if [button for button in app.button if button.key == "run"] and "recent" in address:
        app.button(key="run").click().run()
    assert said in words(app)
    assert not [button for button in app.button if button.key == "check"]


def test_a_check_is_as_long_as_the_window_asks_until_that_is_chosen(open_page: OpenPage) -> None:
    app = open_page("convert", plan="3")
    box = app.number_input(key="check_tokens")
    assert (box.value, box.placeholder) == (None, "1024")
    assert "640 at least" in box.help
    assert "Needles in prompts of 1,024 tokens" in words(app)
    box.set_value(1536).run()
    assert "Needles in prompts of 1,536 tokens" in words(app)
    app.number_input(key="check_tokens").set_value(None).run()
    assert "Needles in prompts of 1,024 tokens" in words(app)


@pytest.mark.parametrize(
    ("window", "device", "length"),
    [
        (Window(4, 252), "cpu", 1024),
        (Window(4, 1020), "cpu", 2048),
        (Window(4, 252), "cuda:0", 4096),
        (Window(4, 6000), "cpu", 8064),
    ],
)
def test_prompts_are_as_long_as_window_device_and_positions_ask(window: Window, device: str, length: int) -> None:
    model = dataclasses.replace(Summary.of(record()["prefill"]).spec, device=device)
    assert checking.fitting_length(model, ConversionPlan((1,), window)) == length


@pytest.mark.parametrize(("needles", "short"), [(3, False), (4, False), (5, True)])
def test_a_prompt_is_called_short_only_once_a_passage_was_due(needles: int, short: bool) -> None:
    one = CheckedPrompt("passkey", 1, 900, Outcome(1.0), Outcome(1.0), Outcome(0.0))
    both = [
        dataclasses.replace(one, seed=seed, question=way) for seed in range(needles) for way in ("aware", "agnostic")
    ]
    result = CheckResult(ChoiceCheck(ConversionPlan((1,), Window(4, 60)), 900), tuple(both), "time", 119.0)
    said = check_words.asked(result)
    assert said.startswith(f"{needles} prompts of 900 tokens")
    assert ("shorter than these" in said) == short


def test_a_model_that_can_do_nothing_gives_no_verdict() -> None:
    wrong = CheckedPrompt("passkey", 1, 900, Outcome(0.0), Outcome(0.0), Outcome(0.0))
    read = CheckedPrompt("passages", 0, 900, Outcome(None, 2.0, 0.0), *[Outcome(None, 2.1, 0.1)] * 2)
    result = CheckResult(ChoiceCheck(ConversionPlan((1,), Window(4, 60)), 900), (wrong, wrong, read), "unable", 9.0)
    said = check_words.verdict(findings(result.prompts))
    assert said.startswith("The full model answers none of 2 questions right, so answers say nothing of the plan.")
    assert "On 1 passage of your prompt it changes the negative log-likelihood by +0.100 nats" in said
    assert "too few" in said
    asked = check_words.asked(result)
    assert "the full model could answer none of the questions" in asked
    assert "Given up" in asked
    assert "Pass key" in asked


def test_a_measured_order_is_applied_as_far_as_it_was_measured(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", recent="252")
    app.button_group(key="rule").set_value("Measured").run()
    assert len(app.selectbox(key="measured_order").options) == 12

    def lazy() -> int:
        return int(next(one.value for one in app.slider if one.label == "Layers to convert, in this order"))

    before = app.text_input(key="plan").value
    for title, name, count in (("Recall", "recall", 15), ("Leave one out, KL", "kl", 7)):
        app.selectbox(key="measured_order").set_value(title).run()
        orders = read_orders(SHIPPED / f"calibrated_{name}.json")
        order = next(one for one in orders if one.window == Window(4, 252))
        assert lazy() == count, "as far as it holds however it was asked, not what was chosen for the other"
        said = words(app)
        assert "Measured on smollm2 at window 4 + 252: with so many lazy layers" in said
        assert "| in the prompt | 1,536 | 75% | " in said
        assert f"Made from: {errors.plain(order.made)}." in said
        assert app.text_input(key="plan").value == before, "nothing changes before Apply"
        app.button(key="apply_order").click().run()
        before = app.text_input(key="plan").value
        assert before == format_layers(order.order[:count])
    next(one for one in app.slider if one.label == "Layers to convert, in this order").set_value(2).run()
    assert app.text_input(key="plan").value == format_layers(order.order[:2])


def test_an_order_that_was_tried_no_further_at_one_length_goes_as_far_as_it_was_tried_at_others(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = open_page("convert", recent="252")
    app.button_group(key="rule").set_value("Measured").run()
    app.selectbox(key="measured_order").set_value("Echo, plain text").run()
    assert "| in the prompt | 1,536 | 25% or more | " in words(app)
    assert "| in the prompt | 4,096 | 50% | " in words(app)
    assert next(one.value for one in app.slider if one.label == "Layers to convert, in this order") == 15


def test_a_measured_order_says_what_it_keeps_where_the_question_is_asked_later(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = open_page("convert", recent="252")
    app.button_group(key="rule").set_value("Measured").run()
    for title, tried in (("Leave one out, NLL of the answer", True), ("Reach and effect", False)):
        app.selectbox(key="measured_order").set_value(title).run()
        assert ("| of the cut cache | 1,536 | " in words(app)) == tried
        assert ("| of the cut cache | – | – | not measured |" in words(app)) != tried


def test_an_order_that_was_only_asked_of_the_cut_cache_goes_as_far_as_that(
    open_page: OpenPage, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = read_sweep(SHIPPED / "smollm2_seeds_4000.jsonl")
    later = [one for one in shipped.results if one.key.question == "agnostic"]
    lines = [shipped.header.to_json(), *(one.to_json() for one in later)]
    (tmp_path / "later.jsonl").write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path)
    app = open_page("convert", recent="252")
    app.button_group(key="rule").set_value("Measured").run()
    app.selectbox(key="measured_order").set_value("Recall").run()
    slider = next(one for one in app.slider if one.label == "Layers to convert, in this order")
    assert slider.value == 15, "half, as at 3,072 tokens"
    assert "| of the cut cache | 3,072 | 50% | " in words(app)
    assert "| in the prompt | – | – | not measured |" in words(app)
    assert words(app).count("| in the prompt | ") == 1


def test_a_measured_order_says_when_the_window_is_another(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", recent="60")
    app.button(key="run").click().run()
    app.button_group(key="rule").set_value("Measured").run()
    assert "at window 4 + 252" in words(app)
    assert "Your window 4 + 60 was not measured." in words(app)


def test_an_order_of_another_calibration_stands_beside_the_shipped_one(
    open_page: OpenPage, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each with its own layers, under its own numbers."""
    shipped = read_sweep(SHIPPED / "smollm2_seeds_4000.jsonl")
    (first,) = [
        one for one in shipped.header.spec.orders if (one.name, one.window.recent) == ("calibrated_recall", 252)
    ]
    other = dataclasses.replace(first, order=first.order[::-1], made="mine")
    for name, order, moved in (("a", first, 0), ("b", other, 1)):
        spec = dataclasses.replace(shipped.header.spec, orders=(order,), windows=(order.window,), first_seed=moved)
        file = ResultsFile(tmp_path / f"{name}.jsonl", dataclasses.replace(shipped.header, spec=spec))
        kept = {tuple(sorted(order.order[:lazy])): Outcome(1.0) for lazy in range(1, 31)}
        for one in shipped.results:
            key = dataclasses.replace(one.key, seed=one.key.seed - 4000 + moved)
            orders, outcomes = {order.window: {order.name: order.order}}, {order.window: kept}
            file.add(dataclasses.replace(one, key=key, full=Outcome(1.0), orders=orders, outcomes=outcomes))
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path)
    app = open_page("convert", recent="252")
    app.button_group(key="rule").set_value("Measured").run()
    made = {}
    for title in ("Recall", "Recall (2)"):
        app.selectbox(key="measured_order").set_value(title).run()
        app.button(key="apply_order").click().run()
        made[title] = ("Made from: mine." in words(app), app.text_input(key="plan").value)
    assert sorted(mine for mine, _ in made.values()) == [False, True]
    assert len({plan for _, plan in made.values()}) == 2


def test_where_no_order_was_measured_it_says_how_to_make_one(
    open_page: OpenPage, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evidence, "SHIPPED", tmp_path)
    app = open_page("convert")
    app.button_group(key="rule").set_value("Measured").run()
    assert "No order for all prompts has been measured on smollm2 yet" in words(app)
    assert not [box for box in app.selectbox if box.key == "measured_order"]
