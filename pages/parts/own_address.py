"""What a page writes into its own address, kept until the browser has it.

A rerun brings along the address that the browser had when it asked for it. Where a second rerun was asked for before
the browser heard of a change, it would take that change back; so a change is written again until a later run sees it.
"""

from __future__ import annotations

from typing import Final

import streamlit as st

_PENDING: Final = "address_changes"
_RUN: Final = "address_run"


def write(name: str, value: str | None) -> None:
    """Set a parameter of the address, or leave it out; to be called in a callback."""
    pending: dict[str, tuple[str | None, int]] = st.session_state.setdefault(_PENDING, {})
    pending[name] = (value, st.session_state.get(_RUN, 0) + 1)
    _set(name, value)


def hold() -> None:
    """At the beginning of a run: what the browser does not have yet is written again."""
    run = st.session_state[_RUN] = st.session_state.get(_RUN, 0) + 1
    pending: dict[str, tuple[str | None, int]] = st.session_state.get(_PENDING, {})
    for name, (value, written) in list(pending.items()):
        if st.query_params.get(name) != value:
            _set(name, value)
        elif run > written:
            del pending[name]


def _set(name: str, value: str | None) -> None:
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value
