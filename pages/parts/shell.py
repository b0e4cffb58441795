"""The shell that every visit draws: navigation, the frame, the sidebar, then the page."""

from __future__ import annotations

from typing import Final

import streamlit as st

from pages.parts import frame, own_address, sidebar
from pages.parts.recipe import Recipe

PAGES: Final = {
    "start": ("Start", "What this is, and one run of the chosen prompt."),
    "attention": ("Attention", "Every layer and head, from the whole prompt to one token pair."),
    "laziness": ("Laziness", "Where each layer’s attention goes, and the ranking."),
    "convert": ("Convert", "Choose the layers that stream, and what that saves."),
    "compare": ("Compare", "The full model and the plan, side by side, live."),
    "scale": ("Scale", "The plan at other context lengths, batch sizes and memories."),
    "frontier": ("Frontier", "Which ranking of the layers holds, over many prompts."),
    "sessions": ("Sessions", "Saved runs, replayed without the model."),
}

_RECIPE: Final = "recipe_of_this_run"


def draw() -> None:
    """One run of the app's script."""
    own_address.hold()
    page = st.navigation(
        [
            st.Page(f"pages/{name}.py", title=title, url_path=name, help=text, default=name == "start")
            for name, (title, text) in PAGES.items()
        ],
        position="top",
    )
    if st.query_params.get("present") == "1":
        # the switch that is bound to it understands true and false only
        st.switch_page(page, query_params={**st.query_params.to_dict(), "present": "true"})
    icon = frame.ASSETS / "icon.svg"
    st.set_page_config(f"{page.title} · LightTransfer Explorer", icon, "wide")
    st.logo(icon, size="large")
    st.session_state[_RECIPE] = sidebar.sidebar()
    # after the sidebar: its switch takes its value from the address only when it is drawn
    frame.present()
    try:
        sidebar.complaints()
        page.run()
        frame.leave_presentation()
    finally:
        del st.session_state[_RECIPE]


def recipe() -> Recipe:
    """The sidebar's choices, for a page; ends the page's script where they make no recipe, as the sidebar has said.

    Until the first call of `st.navigation` in a process, streamlit runs a file of the `pages` folder by itself when an
    address names it. Then the shell is drawn from here, and it runs the page.
    """
    if _RECIPE not in st.session_state:
        draw()
        st.stop()
    chosen: Recipe | None = st.session_state[_RECIPE]
    if chosen is None:
        st.markdown("The choices in the sidebar do not go together; it says why. Change them to go on.")
        st.stop()
    return chosen
