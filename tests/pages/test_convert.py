from __future__ import annotations

from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend


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
