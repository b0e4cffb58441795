"""The dialog in which a visitor gives a text of their own."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.errors import InvalidPromptError
from pages.parts import errors
from pages.parts.prompts import decode_upload, demo_prompts, keep_own_text

_PROBLEM = "own_text_problem"
_OPENED = "own_text_opened"


@st.dialog("Your own text", width="large")
def own_text_dialog() -> None:
    """Paste or upload; “Use this text” makes it the prompt."""
    st.markdown(
        "The text goes to the backend of this app and to no other place. Laziness shows on texts that are longer than "
        "the window: some thousand words, with a question at the end."
    )
    # without max_chars: a longer text would be dropped, and looks empty then
    st.text_area("Paste text", key="own_text_area", height=260, on_change=_forget_problem)
    st.file_uploader("or upload a .txt or .md file", type=["txt", "md"], key=_file_key(), on_change=_forget_problem)
    if (
        st.button("Use this text", type="primary", on_click=_use, key="own_text_use")
        and _PROBLEM not in st.session_state
    ):
        st.rerun()
    if _PROBLEM in st.session_state:
        uploaded = st.session_state.get(_file_key()) is not None
        errors.panel(
            st.session_state[_PROBLEM],
            "Remove the file to use the pasted text, or upload another one."
            if uploaded
            else "Paste a text or upload a file, then use it.",
        )


def open_anew() -> None:
    """Before the dialog opens: no file and no problem is left in it of the time before."""
    _forget_problem()
    st.session_state[_OPENED] = st.session_state.get(_OPENED, 0) + 1


def _forget_problem() -> None:
    """What was refused is another text now."""
    st.session_state.pop(_PROBLEM, None)


def _file_key() -> str:
    """Another one each time that the dialog opens, since a file cannot be taken back from its field."""
    return f"own_text_file_{st.session_state.get(_OPENED, 0)}"


def _use() -> None:
    _forget_problem()
    try:
        upload = st.session_state[_file_key()]
        text = decode_upload(upload.getvalue()) if upload is not None else st.session_state.own_text_area
        key = keep_own_text(text)
        if st.session_state.get("prompt") in demo_prompts():
            st.session_state.rendering = "chat"  # the demo's may be another, which nobody asked for
        st.session_state.prompt = key
    except InvalidPromptError as error:
        st.session_state[_PROBLEM] = error
