"""The backend process and what speaks to it.

`specs`, `client`, `launcher`, `proxy` and `headers` are for the page process and import neither torch nor FastAPI.
"""
