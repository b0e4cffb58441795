"""The dialog in which a visitor gives a text of their own."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.errors import InvalidPromptError
from pages.parts import errors
from pages.parts.prompts import decode_upload, demo_prompts, keep_own_text

_PROBLEM = "own_text_problem"


@st.dialog("Your own text", width="large")
def own_text_dialog() -> None:
    """Paste or upload; “Use this text” makes it the prompt."""
    st.markdown(
        "The text goes to the backend of this app and to no other place. Laziness shows on texts that are longer than "
        "the window: some thousand words, with a question at the end."
    )
    # without max_chars: a longer text would be dropped, and looks empty then
    st.text_area("Paste text", key="own_text_area", height=260)
    st.file_uploader("or upload a .txt or .md file", type=["txt", "md"], key="own_text_file")
    if (
        st.button("Use this text", type="primary", on_click=_use, key="own_text_use")
        and _PROBLEM not in st.session_state
    ):
        st.rerun()
    if _PROBLEM in st.session_state:
        errors.panel(st.session_state[_PROBLEM], "Paste a text or upload a file, then use it.")


def forget_problem() -> None:
    """For a dialog that opens anew."""
    st.session_state.pop(_PROBLEM, None)


def _use() -> None:
    forget_problem()
    try:
        upload = st.session_state.own_text_file
        text = decode_upload(upload.getvalue()) if upload is not None else st.session_state.own_text_area
        key = keep_own_text(text)
        if st.session_state.get("prompt") in demo_prompts():
            st.session_state.rendering = "chat"  # the demo's may be another, which nobody asked for
        st.session_state.prompt = key
    except InvalidPromptError as error:
        st.session_state[_PROBLEM] = error
