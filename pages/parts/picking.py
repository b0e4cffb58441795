"""Choices that are in the address, and a word where an address asks for what there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Final, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts.address import left_out, not_here

COMPLAINTS: Final = "complaints"


def pick(place: DeltaGenerator | ModuleType, label: str, key: str, options: list[str], help: str | None = None) -> str:
    """A box whose choice is in the address; what the results do not have gives way to the first option."""
    if key in st.session_state and st.session_state[key] not in options:
        st.session_state[key] = options[0]  # the address follows, since the box was drawn before
    told_if_missing(key, options)
    return str(place.selectbox(label, options, key=key, bind="query-params", help=help))


def switch(
    place: DeltaGenerator | ModuleType,
    label: str,
    key: str,
    options: Iterable[str],
    help: str | None = None,
    label_visibility: Literal["visible", "collapsed"] = "visible",
) -> str:
    """Buttons of which one is pressed, the first by default; the choice is in the address."""
    names = list(options)
    told_if_missing(key, names)
    pressed = place.segmented_control(
        label,
        names,
        default=names[0],
        required=True,
        key=key,
        bind="query-params",
        help=help,
        label_visibility=label_visibility,
    )
    return str(pressed or names[0])


def told_if_missing(key: str, options: Collection[str]) -> None:
    """Before a choice is drawn for the first time: says it where the address asks for what there is not."""
    asked = st.query_params.get(key)
    if key in st.session_state or asked is None or asked in options:
        return
    del st.query_params[key]
    st.session_state.setdefault(COMPLAINTS, []).append(not_here(key, asked, "on this page"))
    st.rerun()  # complaints stand above the page


def told_of_missing(key: str, options: Collection[str]) -> None:
    """The same for a choice of several: what there is stays chosen."""
    asked = st.query_params.get_all(key)
    missing = [name for name in asked if name not in options]
    if key in st.session_state or not missing:
        return
    st.query_params[key] = [name for name in asked if name in options]
    st.session_state.setdefault(COMPLAINTS, []).extend(left_out(key, name) for name in missing)
    st.rerun()
