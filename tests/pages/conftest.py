from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages.parts import backend, runs, scaling
from tests.pages.fake_backend import FakeBackend

APP = Path(__file__).resolve().parents[2] / "app.py"

OpenPage = Callable[..., AppTest]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeBackend:
    monkeypatch.setenv("LIGHTTRANSFER_RESULTS", str(tmp_path / "results"))
    made = FakeBackend()
    monkeypatch.setattr(backend, "backend", lambda: made)
    st.cache_data.clear()
    runs.book.clear()
    scaling.measurements.clear()
    return made


@pytest.fixture
def open_page(fake: FakeBackend) -> OpenPage:
    """Opens a page as a new visitor, with an address."""

    def opened(page: str = "start", **address: str) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in address.items():
            app.query_params[name] = value
        app.run()
        if page != "start":
            app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        return app

    return opened


def words(app: AppTest) -> str:
    """Everything that a page says."""
    kinds = (app.title, app.header, app.markdown, app.caption, app.info, app.warning, app.error)
    return "\n".join(element.value for kind in kinds for element in kind)
