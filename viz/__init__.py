"""Pure builders: numbers in, plotly figures and bytes out.

Nothing here knows torch, and only `viz.components` knows streamlit.
"""
