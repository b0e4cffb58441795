"""The app: as the script of every visit it draws the shell and the chosen page; as a module it is the page server.

`streamlit run app.py` imports it once as the server, which forwards /api to the backend and watches the embedded one.
"""

from __future__ import annotations

import streamlit as st

if __name__ == "__main__":
    from pages.parts import shell

    shell.draw()
else:
    from pages.parts import errors, server

    app = st.App(
        __file__,
        routes=server.routes(),
        middleware=server.middleware(),
        lifespan=server.lifespan,
        on_script_error=errors.unexpected,
    )
