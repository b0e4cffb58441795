from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lighttransfer_core.errors import DoesNotFitError, QueueFullError
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from pages.parts import results
from pages.parts.defaults import default_recipe
from tests.pages.conftest import APP, OpenPage, words
from tests.pages.fake_backend import FakeBackend

PAGES = ["start", "laziness", "convert", "compare"]


def components(app: AppTest, name: str) -> list[dict[str, Any]]:
    """The props of the mounted components of a name."""
    protos = [element.proto for element in app.get("bidi_component")]
    return [json.loads(proto.json)[0] for proto in protos if proto.component_name == f"lighttransfer_{name}"]


@pytest.mark.parametrize("page", PAGES)
def test_the_bare_address_shows_the_recorded_run_and_says_so(open_page: OpenPage, fake: FakeBackend, page: str) -> None:
    app = open_page(page)
    assert "Recorded run" in words(app)
    assert not app.error
    assert not any(isinstance(spec, PrefillSpec | CompareSpec) for spec in fake.started), "looking must not start a run"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_stands_while_the_backend_starts(open_page: OpenPage, fake: FakeBackend, page: str) -> None:
    fake.up = False
    app = open_page(page)
    assert "Recorded run" in words(app)
    assert components(app, "run_progress")[0]["token"] is None
    assert not app.error


@pytest.mark.parametrize("page", ["start", "attention", "laziness", "convert", "compare", "scale", "sessions"])
def test_python_is_sent_once_it_is_unfolded(open_page: OpenPage, fake: FakeBackend, page: str) -> None:
    app = open_page(page)
    assert not app.code
    app.session_state["snippet"] = True
    app.run()
    assert [code.language for code in app.code] == ["python"]
    assert any(name in app.code[0].value for name in ("lighttransfer_core", "lt."))


def test_the_page_process_never_imports_torch_and_no_pandas_for_the_first_page() -> None:
    code = (
        "import sys, runpy\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=60).run()\n"
        "assert not app.exception, app.exception\n"
        "assert 'Recorded run' in app.info[0].value\n"
        "assert 'pandas' not in sys.modules, 'which takes longer than to draw the page'\n"
        f"for name in {[*PAGES, 'attention', 'scale', 'frontier']!r}: app.switch_page(f'pages/{{name}}.py').run()\n"
        "import pages.parts.server\n"
        "found = sorted({'torch', 'transformers', 'fastapi'} & set(sys.modules))\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=APP.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_recorded_run_is_one_of_today_s_default(fake: FakeBackend) -> None:
    recipe = default_recipe()
    assert results.recorded_summary(recipe.prefill_spec()) is not None, (
        "the default recipe has changed: python -m benchmarks.record_default_run"
    )


def test_run_starts_one_prefill_and_shows_it(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page()
    app.button(key="run").click().run()
    assert [spec.kind for spec in fake.started] == ["prefill"]
    assert "Recorded run" not in words(app)
    assert [metric.label for metric in app.metric][:2] == ["Prompt, tokens", "Prefill, measured"]


def test_a_second_visitor_finds_the_result_without_a_run(open_page: OpenPage, fake: FakeBackend) -> None:
    open_page().button(key="run").click().run()
    other = open_page("laziness")
    assert "Recorded run" not in words(other)
    assert len(fake.started) == 1


def test_what_changes_the_scores_alone_is_scored_unasked(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness")
    app.number_input(key="sink").set_value(8).run()
    assert not fake.started, "nothing was run yet"
    app.button(key="run").click().run()
    for key, value in (("sink", 2), ("recent", 300), ("last", 8)):
        app.number_input(key=key).set_value(value).run()
        (spec,) = fake.started[-1:]
        assert isinstance(spec, PrefillSpec)
        assert value in (spec.window.sink, spec.window.recent, spec.last)
        assert "No result for these choices" not in words(app)
    asked = len(fake.started)
    assert asked == 4
    app.selectbox(key="prompt").select_index(1).run()
    assert len(fake.started) == asked, "another prompt costs a prefill"
    assert app.button(key="run")


def test_what_is_scored_unasked_takes_no_other_run_s_place(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("convert", plan="3")
    app.button(key="run").click().run()
    fake.finish = lambda spec: "running"
    app.button(key="check").click().run()
    app.number_input(key="sink").set_value(8).run()
    assert [spec.kind for spec in fake.started] == ["prefill", "check"]
    assert app.button(key="run")
    fake.end("done")
    app.run()
    assert [spec.kind for spec in fake.started] == ["prefill", "check", "prefill"]
    app.number_input(key="sink").set_value(2).run()
    assert [spec.kind for spec in fake.started][3:] == ["prefill"], "one that only scores gives way to the next"


def test_nothing_is_started_unasked_where_no_progress_is_shown(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness")
    app.button(key="run").click().run()
    app.switch_page("pages/frontier.py").run()
    app.number_input(key="sink").set_value(8).run()
    assert len(fake.started) == 1


def test_a_run_that_was_cancelled_is_not_begun_again_unasked(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("laziness")
    app.button(key="run").click().run()
    fake.finish = lambda spec: "running"
    app.number_input(key="sink").set_value(8).run()
    fake.cancel("token-2")
    app.run()
    assert len(fake.started) == 2
    assert app.button(key="run").label == "Run again"


def test_a_single_token_is_one_token(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.num_tokens = 1
    said = words(open_page(sink="0", recent="1"))
    assert ", 1 token, given as" in said
    assert "**1 token**, at most" in said
    assert "The window keeps 1 token, as many" in said
    assert "\n1 token, rendered as" in said
    assert "1 tokens, " not in said


def test_a_prompt_that_is_too_long_cannot_be_run(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.num_tokens = 1_000_000
    app = open_page("laziness", recent="300")
    assert "The prompt has 1,000,000 tokens, " in words(app)
    assert " more than this model and machine take" in words(app)
    assert app.button(key="run").disabled


def test_a_run_under_way_shows_its_progress_to_every_visitor(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish, fake.age_s = lambda spec: "running", 7.5
    app = open_page()
    app.button(key="run").click().run()
    assert components(app, "run_progress")[0]["token"] == "token-1"
    assert components(app, "run_progress")[0]["age_s"] == 7.5, "the time goes on where another page has left it"
    other = open_page("laziness")
    assert components(other, "run_progress")[0]["token"] == "token-2", "each visitor follows by a token of their own"
    fake.end("done")
    other.run()
    assert not components(other, "run_progress")


def test_a_cancelled_run_says_so_and_can_be_run_again(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    app = open_page()
    app.button(key="run").click().run()
    fake.cancel("token-1")
    app.run()
    assert "cancelled" in words(app)
    fake.finish = lambda spec: "done"
    app.button(key="run").click().run()
    assert "cancelled" not in words(app)


def test_a_backend_that_dies_in_the_middle_of_a_run_is_named_and_the_next_run_works(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    fake.finish = lambda spec: "running"
    app = open_page()
    app.button(key="run").click().run()
    fake.up = False
    app.run()
    fake.up = True
    fake.restart()
    app.run()
    assert "exit status \\-9" in app.error[0].value
    assert "What to do" in app.error[0].value
    fake.finish = lambda spec: "done"
    app.button(key="run").click().run()
    assert not app.error
    assert default_recipe().prompt.hash in fake.prompts, "the restarted backend was given the text again"


def test_a_failed_run_stays_on_the_screen(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "failed"
    app = open_page()
    app.button(key="run").click().run()
    app.run()
    assert "It broke" in app.error[0].value


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (DoesNotFitError("It needs 9 GiB.", "a prompt of 4,096 tokens"), "a prompt of 4"),
        (QueueFullError("32 runs wait already."), "Wait until a run has ended"),
    ],
)
def test_a_refusal_says_what_to_do(open_page: OpenPage, fake: FakeBackend, refusal: Exception, said: str) -> None:
    fake.refusal = refusal  # type: ignore[assignment]
    app = open_page()
    app.button(key="run").click().run()
    assert said in app.error[0].value


def test_a_prompt_that_fits_the_window_is_not_ranked(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.num_tokens = 2000
    app = open_page("start", recent="60000")
    assert "nothing can be ranked" in words(app)
    app.button(key="run").click().run()
    for page in ("laziness", "convert", "compare"):
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        assert "nothing to rank" in words(app)


@pytest.mark.parametrize("name", ["model", "prompt", "metric", "rendering", "sink", "recent", "last", "ask", "memory"])
@pytest.mark.parametrize("value", ["nonsense", "-5", "<script>", "99999999999999999999"])
def test_an_absurd_address_is_answered_with_a_sentence(
    open_page: OpenPage, fake: FakeBackend, name: str, value: str
) -> None:
    app = open_page("start", **{name: value})
    assert name in app.warning[0].value
    assert "Run" in [button.label for button in app.button]
    app.button(key="complaints_dismiss").click().run()
    assert not app.warning


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("laziness", "view"),
        ("laziness", "order"),
        ("attention", "rows"),
        ("frontier", "evidence"),
        ("frontier", "window"),
        ("frontier", "beside"),
    ],
)
def test_a_choice_that_a_page_does_not_have_is_answered_with_a_sentence(
    open_page: OpenPage, fake: FakeBackend, page: str, name: str
) -> None:
    app = open_page(page, **{name: "banana"})
    if page == "attention":
        app.button(key="run").click().run()
    assert [f"{name} “banana”" in warning.value for warning in app.warning] == [True]
    app.button(key="complaints_dismiss").click().run()
    assert not app.warning
    assert not app.exception


@pytest.mark.parametrize("plan", ["banana", "5-3", "99", "1,,2", "-1", "3-"])
def test_an_absurd_plan_is_answered_with_an_error_on_each_page(
    open_page: OpenPage, fake: FakeBackend, plan: str
) -> None:
    for page in ("start", "convert", "compare"):
        app = open_page(page, plan=plan)
        assert "What to do" in app.error[0].value


def test_the_address_restores_every_choice(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page(
        "convert",
        prompt="needle",
        sink="8",
        recent="120",
        metric="worst_head",
        last="16",
        rendering="raw",
        plan="3,5-7",
    )
    app.button(key="run").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, PrefillSpec)
    assert (spec.window.sink, spec.window.recent, spec.metric, spec.last) == (8, 120, "worst_head", 16)
    assert spec.rendering == "raw"
    assert components(app, "layer_grid")[0]["lazy"] == [3, 5, 6, 7]


def test_a_demo_is_rendered_as_it_is_meant_unless_the_address_says_otherwise(
    open_page: OpenPage, fake: FakeBackend
) -> None:
    app = open_page("laziness", prompt="code")
    assert app.button_group(key="rendering").value == "raw"
    app.selectbox(key="prompt").set_value("needle").run()
    assert app.button_group(key="rendering").value == "chat"
    app.selectbox(key="prompt").set_value("dialogue").run()
    assert app.button_group(key="rendering").value == "raw"
    app.button_group(key="rendering").set_value("chat").run()
    assert app.button_group(key="rendering").value == "chat"
    assert open_page("laziness", prompt="code", rendering="chat").button_group(key="rendering").value == "chat"


def test_presentation_mode_is_in_the_address_and_can_be_left(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("start", present="1")
    assert app.session_state.present is True
    app.button(key="leave_present").click().run()
    assert app.session_state.present is False


def test_an_own_text_that_the_backend_no_longer_has_is_named(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("start", prompt="a" * 64)
    assert "No prompt is stored" in app.error[0].value


def test_text_of_a_model_or_a_visitor_is_never_markup(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("compare", plan="[x](http://evil) ![y](http://evil/z.png)")
    assert "\\[" in app.error[0].value or "\\(" in app.error[0].value


def test_the_death_of_the_backend_is_told_to_all_who_followed_and_stays(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.finish = lambda spec: "running"
    first = open_page()
    first.button(key="run").click().run()
    second = open_page("laziness")
    bystander = open_page("start", prompt="needle")
    fake.restart()
    for app in (first, second, first, second):
        app.run()
        assert "The run is gone" in app.error[0].value
    assert not bystander.run().error
