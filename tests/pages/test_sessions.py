"""The Sessions page: files that open, files that do not, and two beside each other."""

from __future__ import annotations

import copy
import json

from streamlit.testing.v1 import AppTest

from lighttransfer_core.session import Session
from pages.parts import results, saved
from tests.pages.conftest import OpenPage, words
from tests.pages.fake_backend import FakeBackend
from tests.pages.test_pages import components


def session_bytes() -> bytes:
    return json.dumps(results.record()["session"]).encode()


def upload(app: AppTest, column: int, data: bytes) -> AppTest:
    app.file_uploader(key=f"session_{column}").set_value(("session.json", data, "application/json")).run()
    assert not app.exception
    return app


def test_a_session_replays_without_the_backend(open_page: OpenPage, fake: FakeBackend) -> None:
    fake.up = False
    app = upload(open_page("sessions"), 0, session_bytes())
    (props,) = components(app, "live_panel")
    assert (props["token"], props["changeable"]) == (None, False)
    assert props["events"] == results.record()["session"]["events"]
    assert "smollm2" in words(app)
    assert app.text_area[0].value == results.record()["session"]["texts"][0]


def test_two_sessions_stand_beside_each_other(open_page: OpenPage) -> None:
    app = upload(open_page("sessions"), 0, session_bytes())
    upload(app, 1, session_bytes())
    assert len(components(app, "live_panel")) == 2
    assert len(components(app, "chart")) == 2
    assert "Equal: model, prompt, plans, answers, device, versions." in words(app)
    assert list(app.table[0].value["Lane"]) == ["first, A", "first, B", "second, A", "second, B"]


def test_what_is_no_session_is_said_and_the_other_stays(open_page: OpenPage) -> None:
    app = upload(open_page("sessions"), 0, session_bytes())
    upload(app, 1, b"{}")
    assert "not a saved session" in app.error[0].value
    assert len(components(app, "live_panel")) == 1


def test_an_oversized_session_is_refused_and_the_other_stays(open_page: OpenPage) -> None:
    app = upload(open_page("sessions"), 0, session_bytes())
    upload(app, 1, session_bytes() + b" " * 2**24)
    assert "a session has at most 16\\,777\\,216" in app.error[0].value
    assert len(components(app, "live_panel")) == 1


def test_what_differs_is_named() -> None:
    first = Session.from_bytes(session_bytes())
    changed = copy.deepcopy(results.record()["session"])
    changed["result"]["lanes"]["b"]["answers"][0]["tokens"][0] += 1
    step = next(event for event in changed["events"] if event["kind"] == "step")
    step["lanes"]["b"]["token_id"] += 1
    second = Session.from_bytes(json.dumps(changed).encode())
    assert saved.sameness(first, second) == "Equal: model, prompt, plans, device, versions. Different: answers."
    changed["result"]["lanes"]["b"]["settings"]["follow"] = True
    following = Session.from_bytes(json.dumps(changed).encode())
    assert saved.sameness(second, following) == "Equal: model, prompt, answers, device, versions. Different: plans."


def test_the_figures_are_of_all_answers_and_say_whose_text_was_read(open_page: OpenPage) -> None:
    """As the replay under them counts."""
    data = copy.deepcopy(results.record()["session"])
    steps = [event for event in data["events"] if event["kind"] == "step"]
    data["texts"].append("And then?")
    data["events"] += [{"kind": "turn", "turn": 1, "text": "And then?"}, *({**step, "turn": 1} for step in steps)]
    for lane in data["result"]["lanes"].values():
        lane["answers"].append(copy.deepcopy(lane["answers"][0]))
    lane = data["result"]["lanes"]["b"]
    lane["settings"]["follow"] = True
    lane["answers"][0] |= {"first_divergence": None, "kl": [0.0] * len(lane["answers"][0]["tokens"])}
    lane["answers"][1] |= {"first_divergence": 3, "kl": [0.5] * len(lane["answers"][1]["tokens"])}
    app = upload(open_page("sessions"), 0, json.dumps(data).encode())
    upload(app, 1, session_bytes())
    row = app.table[0].value.iloc[1]
    assert row["Lane"] == "first, B on A’s text"
    assert row["Tokens"] == str(2 * len(lane["answers"][0]["tokens"]))
    assert (row["Mean KL"], row["First difference"]) == ("0.2500 nats", "answer 2, token 3")
    assert "reads A’s text." in words(app)
