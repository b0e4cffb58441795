"""The paper's throughput table, with this model, plan and device beside it."""

from __future__ import annotations

import streamlit as st

from lighttransfer_core.cost.measured import PAPER_THROUGHPUT
from lighttransfer_core.cost.roofline import DeviceSpeed, Throughput
from pages.parts import scaling
from pages.parts.scaling import Question
from viz.units import bytes_text, rate_text


def paper_table(asked: Question, speed: DeviceSpeed) -> None:
    """Predicted throughput and its ratio at the paper's context lengths."""
    rows = []
    for tokens, measured in PAPER_THROUGHPUT.items():
        full, plan = scaling.throughputs(asked, speed, tokens)
        past = " (past this model’s last position)" if tokens > asked.spec.max_positions else ""
        rows.append(
            {
                "Context (tokens)": f"{tokens:,}{past}",
                "Full model, predicted": _text(full),
                "Plan, predicted": _text(plan),
                "Times, predicted": f"{plan.tokens_per_s / full.tokens_per_s:.2f}" if full and plan else "–",
                "Times, measured in the paper": f"{measured:.2f}",
            }
        )
    st.markdown(
        f"The paper’s question, asked of this model and device with {bytes_text(asked.kv_nbytes)} of KV memory. Its "
        "own numbers are of Mistral-7B with half of the layers lazy, on an NVIDIA A100 and with a memory that it does "
        "not state."
    )
    st.table({name: [row[name] for row in rows] for name in rows[0]})


def _text(found: Throughput | None) -> str:
    return "no sequence fits" if found is None else f"{rate_text(found.tokens_per_s)} in a batch of {found.batch:,}"
