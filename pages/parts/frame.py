"""The frame around every page: presentation mode, snippets, lesson texts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

ASSETS: Final = Path(__file__).resolve().parents[2] / "assets"


def present() -> None:
    """Larger type and no sidebar, where the address or the switch asks for it."""
    if st.session_state.get("present"):
        st.html(ASSETS / "present.css")


def opening(title: str, text: str = "") -> None:
    """A page's name and what it is for."""
    with for_readers("opening"):
        st.title(title)
        if text:
            st.markdown(text)


def for_readers(name: str) -> DeltaGenerator:
    """A place for words that a speaker says: in presentation mode they stay in the document, and off the screen."""
    return st.container(key=f"readers_{name}")


def leave_presentation() -> None:
    """The way back, since the switch is in the sidebar that presentation mode hides."""
    if st.session_state.get("present"):
        st.button(
            "Leave presentation",
            key="leave_present",
            type="tertiary",
            on_click=lambda: st.session_state.update(present=False),
        )


@st.fragment
def snippet(code: str, title: str = "Use from Python", language: str = "python", note: str = "") -> None:
    """A page's result as code, sent once it is unfolded: the browser needs up to a second to load what colours code."""
    with st.expander(title, key="snippet", icon=":material/code:", on_change="rerun") as folded:
        if folded.open:
            st.code(code, language=language, wrap_lines=True)
            if note:
                st.markdown(note)


def lesson(name: str, title: str) -> None:
    """A lesson text of `assets/lessons`, folded."""
    with st.expander(title, icon=":material/school:"):
        st.markdown(_lesson(name))


@cache
def _lesson(name: str) -> str:
    return (ASSETS / "lessons" / f"{name}.md").read_text(encoding="utf-8")
