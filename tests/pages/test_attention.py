"""The attention page: what it asks the component for, and what stands in its place without a result."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from lighttransfer_core.errors import QueueFullError
from lighttransfer_core.service.answers import KeepOffer
from lighttransfer_core.service.specs import CompareSpec, PrefillSpec
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components


def ran(open_page: OpenPage, **address: str) -> AppTest:
    app = open_page(**address)
    app.button(key="run").click().run()
    app.switch_page("pages/attention.py").run()
    assert not app.exception
    return app


def test_without_a_run_of_now_it_says_what_to_do(open_page: OpenPage, fake: FakeBackend) -> None:
    app = open_page("attention")
    assert not components(app, "attention_map")
    assert "Run the prompt once" in words(app)
    app.button(key="run").click().run()
    assert components(app, "attention_map")[0]["token"] == "token-1"


def test_the_component_is_told_prompt_window_layers_and_state(open_page: OpenPage) -> None:
    app = ran(open_page, plan="2-4", sink="8", map="view.3.2_tab.text")
    (props,) = components(app, "attention_map")
    assert props["window"] == {"sink": 8, "recent": 252}
    assert props["name"] == "policy"
    assert [layer for layer, frame in enumerate(props["layers"]) if frame["lazy"]] == [2, 3, 4]
    assert props["lane"] is None
    assert props["module"] == "/modules/map/explorer.js"


def test_an_address_of_the_page_itself_restores_the_view(open_page: OpenPage) -> None:
    open_page().button(key="run").click().run()
    app = open_page("attention", map="view.3.2_tab.text")
    assert components(app, "attention_map")[0]["state"] == "view.3.2_tab.text"


def test_an_answer_is_decoded_first_and_shown_then(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page)
    app.segmented_control(key="rows").set_value("answer B").run()
    assert not components(app, "attention_map")
    assert "Nothing is decoded yet" in words(app)
    fake.finish = lambda spec: "running" if isinstance(spec, CompareSpec) else "done"
    app.button(key="run_compare").click().run()
    assert components(app, "run_progress")
    fake.end("done")
    app.run()
    (props,) = components(app, "attention_map")
    assert (props["lane"], props["token"]) == ("b", "token-2")


def test_a_refused_comparison_says_why(open_page: OpenPage, fake: FakeBackend) -> None:
    app = ran(open_page)
    app.segmented_control(key="rows").set_value("answer A").run()
    fake.refusal = QueueFullError("64 runs are waiting already.")
    app.button(key="run_compare").click().run()
    assert "64 runs are waiting" in app.error[0].value


def test_an_unranked_prompt_has_a_map_all_the_same(open_page: OpenPage) -> None:
    app = ran(open_page, recent="8000")
    assert components(app, "attention_map")
    app.segmented_control(key="rows").set_value("answer A").run()
    assert not app.exception


def test_a_prompt_whose_queries_are_too_much_is_offered_what_fits(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.offers = (
        KeepOffer(512, 10, 10**8),
        KeepOffer(2048, 0, 10**8),
        KeepOffer(None, 0, 10**8, host=True),
        KeepOffer(None, 0, 10**8, dtype="bfloat16"),
    )
    app = open_page()
    assert "too much for this backend" in words(app)
    assert app.selectbox(key="keep").options == [
        "layers 0-9",
        "last 2048",
        "all on the host",
        "all in bfloat16",
    ]
    app.button(key="run").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, PrefillSpec)
    assert (spec.query_rows, spec.query_layers) == (512, tuple(range(10)))
    app.selectbox(key="keep").set_value("last 2048").run()
    app.button(key="run").click().run()
    spec = fake.started[-1]
    assert isinstance(spec, PrefillSpec)
    assert (spec.query_rows, spec.query_layers) == (2048, ())
    for choice, facts in (("all on the host", (None, True, "auto")), ("all in bfloat16", (None, False, "bfloat16"))):
        app.selectbox(key="keep").set_value(choice).run()
        app.button(key="run").click().run()
        spec = fake.started[-1]
        assert isinstance(spec, PrefillSpec)
        assert (spec.query_rows, spec.query_host, spec.dtype) == facts


def test_what_a_run_will_keep_is_said_before_it(open_page: OpenPage) -> None:
    app = open_page()
    assert "A run keeps 95.4 MiB of keys and values and 191 MiB of queries, of 954 MiB." in words(app)
    assert "keep" not in [box.key for box in app.selectbox]
