"""Scale: the same plan at other context lengths, batch sizes and memories, predicted and measured."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.errors import InvalidPlanError
from pages.parts import errors, frame, scale_bench, scale_controls, scale_paper, scale_runs, scaling, shell
from pages.parts.snippets import scale_snippet
from viz.components.chart import chart

recipe = shell.recipe()

frame.opening(
    "Scale",
    "The same plan at other sizes. **Lines are predicted** from the bytes that a step reads, **marks are measured** on "
    "the backend’s device; the largest batch is a formula.",
)
choice = scale_controls.controls(recipe)
try:
    asked = scale_controls.question(recipe, choice)
except InvalidPlanError as error:
    errors.panel(error)
    asked = None
if asked is not None:
    st.markdown(errors.plain(scale_controls.what_is_asked(asked)))
    st.header("How many fit")
    scale_controls.sizes(asked)
    chart(scaling.memory_chart(asked), key="chart_scale_kv")
    st.header("How fast a step is")
    scale_runs.measure_bar(choice, asked)
    if asked.speed is not None:
        chart(scaling.latency_chart(asked, asked.speed), key="chart_scale_latency")
        scale_runs.agreement(asked, asked.speed)
    st.header("Throughput, predicted")
    decoded = scale_runs.decoded(recipe, choice, asked)
    if asked.speed is None:
        st.markdown("Measure the device above, or name another one’s bandwidth, to see it.")
    else:
        st.markdown(scale_runs.predicted_words(asked, asked.speed))
        drawn = scaling.throughput_chart(asked, asked.speed, scale_runs.marks(decoded))
        if drawn is None:
            st.markdown("Nor does one at a sixteenth of that length, so there is nothing to draw.")
        else:
            chart(drawn, key="chart_scale_throughput")
        scale_paper.paper_table(asked, asked.speed)
    st.header("Throughput, measured with this prompt")
    if decoded is not None:
        scale_runs.decoded_words(decoded, asked)
    scale_runs.decode_bar(recipe, choice, asked)
st.header("Measured on this machine")
scale_bench.section()
if asked is not None:
    frame.snippet(scale_snippet(recipe, choice.model, asked))
frame.lesson("scaling", "Where the lines come from, and what they leave out")
