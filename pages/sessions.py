"""Sessions: saved runs, replayed without the model that made them, one beside another."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.errors import InvalidSessionError
from lighttransfer_core.session import Session
from pages.parts import errors, frame, saved, shell
from pages.parts.snippets import session_snippet
from viz.components.live_panel import live_panel

shell.recipe()

frame.opening(
    "Sessions",
    "A saved run holds the prompt, the exact token ids, the plans, the seed, the versions and every event. Open one to "
    "replay it as it was, with no model at hand; open a second one to compare.",
)


def opened(column: int) -> Session | None:
    """The session of an uploader, or None after what is wrong with it was shown."""
    label = ("Open a session (.json)", "Compare with another (.json)")[column]
    upload = st.file_uploader(label, type=["json"], key=f"session_{column}")
    if upload is None:
        return None
    try:
        return saved.read(upload.file_id, upload)
    except InvalidSessionError as error:
        errors.panel(error, "Open a file that was saved on the page Compare.")
        return None


columns = st.columns(2, gap="large")
found: list[Session] = []
for column, box in enumerate(columns):
    with box:
        session = opened(column)
        if session is not None:
            found.append(session)
if not found:
    st.markdown("No session is open. On the page **Compare**, a run that has finished can be saved as a file.")
if len(found) == 2:
    saved.beside(found[0], found[1])
for number, session in enumerate(found):
    if len(found) == 2:
        st.header(("First session", "Second session")[number])
    saved.facts(session)
    live_panel(name=f"session {session.made} {number}", key=f"replay_{number}", events=session.events, changeable=False)
    saved.texts(session, key=f"text_{number}")
frame.snippet(session_snippet())
