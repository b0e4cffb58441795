"""The app: as the script of every visit it draws the frame and the chosen page; as a module it is the page server.

`streamlit run app.py` imports it once as the server, which forwards /api to the backend and watches the embedded one.
"""

from __future__ import annotations

import streamlit as st

from pages.parts import errors, frame, sidebar

PAGES = {
    "start": ("Start", "What this is, and one run of the chosen prompt."),
    "laziness": ("Laziness", "Where each layer’s attention goes, and the ranking."),
    "convert": ("Convert", "Choose the layers that stream, and what that saves."),
    "compare": ("Compare", "The full model and the plan, side by side."),
}


def draw() -> None:
    """One run of the page script."""
    pages = [
        st.Page(f"pages/{name}.py", title=title, url_path=name, help=text, default=name == "start")
        for name, (title, text) in PAGES.items()
    ]
    page = st.navigation(pages, position="top")
    st.set_page_config(f"{page.title} · LightTransfer Explorer", frame.ASSETS / "icon.svg", "wide")
    st.logo(frame.ASSETS / "icon.svg", size="large")
    frame.present()
    st.session_state.recipe = sidebar.sidebar()
    sidebar.complaints()
    page.run()
    frame.leave_presentation()


if __name__ == "__main__":
    draw()
else:
    from pages.parts import server

    app = st.App(
        __file__,
        routes=server.routes(),
        middleware=server.middleware(),
        lifespan=server.lifespan,
        on_script_error=errors.unexpected,
    )
