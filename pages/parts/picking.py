"""A box for a choice among what results have, with the choice in the address."""

from __future__ import annotations

from types import ModuleType

import streamlit as st
from streamlit.delta_generator import DeltaGenerator


def pick(place: DeltaGenerator | ModuleType, label: str, key: str, options: list[str], help: str | None = None) -> str:
    """A box whose choice is in the address; what the results do not have gives way to the first option."""
    if key in st.session_state:
        if st.session_state[key] not in options:
            st.session_state[key] = options[0]  # the address follows, since the box was drawn before
    elif st.query_params.get(key, options[0]) not in options:
        del st.query_params[key]
    return str(place.selectbox(label, options, key=key, bind="query-params", help=help))
