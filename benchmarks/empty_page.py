"""A page of nothing but Streamlit, beside which `bench_start` measures the first paint of the app."""

import streamlit as st

st.title("Nothing but Streamlit")
