"""The sidebar: every choice that a result depends on. All are bound to the address and drawn on every page."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

import streamlit as st

from lighttransfer_core.errors import LightTransferError
from lighttransfer_core.layer_sets import ALL, NONE
from lighttransfer_core.models.catalogue import catalogue
from lighttransfer_core.types import Rendering, Window
from pages.parts import address, errors, prompts, status
from pages.parts.defaults import DEFAULT_LAST, DEFAULT_WINDOW
from pages.parts.metrics import offered
from pages.parts.own_text import open_anew, own_text_dialog
from pages.parts.picking import COMPLAINTS
from pages.parts.recipe import Recipe

WINDOWS: Final = {"4 + 60": (4, 60), "4 + 252": (4, 252), "4 + 1020 (paper)": (4, 1020)}


def sidebar() -> Recipe | None:
    """Draw it; None where the choices make no recipe, and then it has said why."""
    _read_address()
    with st.sidebar:
        try:
            recipe = _choices()
        except LightTransferError as error:
            errors.panel(error)
            recipe = None
        st.toggle(
            "Presentation mode",
            key="present",
            bind="query-params",
            help="Larger type and no sidebar, for a projector of 1280 by 720. In the address: present=true.",
        )
    return recipe


def _choices() -> Recipe:
    model = str(st.selectbox("Model", [entry.name for entry in catalogue()], key="model", bind="query-params"))
    status.model_line(model)
    prompt = _prompt()
    rendering = _rendering(prompt)
    tokens = st.container()
    window = _window()
    warning = st.container()
    metric, last = _score()
    recipe = Recipe(model, prompt, rendering, window, last, metric, plan=_plan())
    with tokens:
        status.prompt_line(recipe)
        recipe = replace(recipe, keep=_keep(recipe))
    with warning:
        status.window_line(recipe)
    return recipe


def _prompt() -> prompts.Prompt:
    # both: going back and forth in the browser brings addresses of texts that this visit has not chosen
    keys = prompts.prompt_keys(st.session_state.get("prompt"), st.query_params.get("prompt"))
    # without format_func: the address carries what the box shows, and must carry the key
    key = st.selectbox("Prompt", keys, key="prompt", bind="query-params", on_change=_render_as_meant)
    prompt = prompts.find_prompt(str(key))
    st.caption(f"{errors.plain(prompt.title)}. {errors.plain(prompt.description)}")
    return prompt


def _render_as_meant() -> None:
    """A demo is written for one of the renderings, and the model answers its question in that one only."""
    st.session_state.rendering = prompts.find_prompt(str(st.session_state.prompt)).rendering


def _keep(recipe: Recipe) -> str:
    """Which queries the run keeps: all, or where they are too much for the backend, what fits."""
    offers = status.keep_offers(recipe)
    asked = st.session_state.get("keep") or st.query_params.get("keep", ALL)
    written = [address.format_keep(offer.query_rows, offer.layers, offer.host, offer.dtype) for offer in offers]
    options = written or [ALL]
    if asked not in options and address.parse_keep(asked, 1) != address.Kept():
        options.append(asked)
    if options == [ALL]:
        return ALL
    chosen = st.selectbox(
        "Queries kept",
        options,
        key="keep",
        bind="query-params",
        help="Attention maps need the queries of their rows. Scores and answers need the last rows only, which every "
        "layer keeps.",
    )
    return str(chosen)


def _rendering(prompt: prompts.Prompt) -> Rendering:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        rendering = st.segmented_control(
            "The prompt is given as",
            ["chat", "raw"],
            default=prompt.rendering,
            required=True,
            key="rendering",
            bind="query-params",
            label_visibility="collapsed",
            help="chat: inside the model’s chat template. raw: the text alone, as for a base model.",
        )
        if st.button("Own text…", key="own_text_open", icon=":material/edit_note:", on_click=open_anew):
            own_text_dialog()
    return cast(Rendering, rendering or prompt.rendering)


def _window() -> Window:
    sink_box, recent_box = st.columns(2)
    sink = sink_box.number_input(
        "Sink tokens",
        *address.SINK_RANGE,
        value=DEFAULT_WINDOW.sink,
        key="sink",
        bind="query-params",
        help="The first tokens of the prompt, which a streaming layer always keeps.",
    )
    recent = recent_box.number_input(
        "Recent tokens",
        *address.RECENT_RANGE,
        value=DEFAULT_WINDOW.recent,
        key="recent",
        bind="query-params",
        help="The newest tokens, which a streaming layer keeps; the current one counts.",
    )
    with st.container(horizontal=True, gap="small"):
        for label, sizes in WINDOWS.items():
            st.button(label, key=f"window_{sizes[1]}", on_click=_set_window, args=sizes, type="tertiary")
    return Window(sink=int(sink), recent=int(recent))


def _set_window(sink: int, recent: int) -> None:
    st.session_state.sink, st.session_state.recent = sink, recent


def _score() -> tuple[str, int]:
    score_box, last_box = st.columns([3, 2])
    metric = score_box.selectbox(
        "Laziness score",
        offered(),
        key="metric",
        bind="query-params",
        help="How a layer’s attention becomes one number. The Laziness page explains the chosen one.",
    )
    last = last_box.number_input(
        "Last queries",
        *address.LAST_RANGE,
        value=DEFAULT_LAST,
        key="last",
        bind="query-params",
        help="The score looks at the attention of the last so many prompt tokens.",
    )
    return str(metric), int(last)


def _plan() -> str:
    plan = st.text_input(
        "Layers to convert",
        value=address.HALF,
        key="plan",
        bind="query-params",
        max_chars=500,
        help="half: the laziest half. none, all, or a list such as 3,5-9. The Convert page sets it by clicks.",
    )
    return plan or NONE


def _read_address() -> None:
    """Once a session, before the widgets: what the address asks for and cannot have."""
    if "address_read" in st.session_state:
        return
    st.session_state.address_read = True
    asked = st.query_params.to_dict()
    options = {
        "model": [entry.name for entry in catalogue()],
        "prompt": prompts.prompt_keys(asked.get("prompt")),
        "rendering": ["chat", "raw"],
        "metric": offered(),
        "ask": [address.SIDEBAR, *(entry.name for entry in catalogue())],
    }
    st.session_state[COMPLAINTS] = address.complaints(asked, options)


def complaints() -> None:
    """What the address asked for in vain, until it is dismissed."""
    found: list[str] = st.session_state.get(COMPLAINTS, [])
    if not found:
        return
    st.warning("\n\n".join(map(errors.plain, found)), icon=":material/link_off:")
    st.button("Dismiss", key="complaints_dismiss", on_click=lambda: st.session_state.pop(COMPLAINTS, None))
