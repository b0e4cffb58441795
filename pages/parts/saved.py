"""Saved sessions on a page: what they are, and two of them beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import streamlit as st

from lighttransfer_core.layer_sets import format_layers
from lighttransfer_core.session import Session
from pages.parts import errors
from viz import comparison
from viz.components.chart import chart
from viz.units import bytes_text, count_text, moment_text, seconds_text


class _Upload(Protocol):
    def getvalue(self) -> bytes: ...


@st.cache_data(show_spinner=False, max_entries=8, scope="session")
def read(file_id: str, _upload: _Upload) -> Session:
    """The session of an uploaded file, read once. Raises InvalidSessionError."""
    return Session.from_bytes(_upload.getvalue())


def facts(session: Session) -> None:
    """Where and when it was made, and with what."""
    model, begin = session.model, session.begin
    versions = ", ".join(f"{name} {version}" for name, version in session.versions.items())
    spec = session.spec
    sampling = f"temperature {spec['temperature']}, seed {spec['seed']}" if spec.get("temperature") else "greedy"
    st.markdown(
        f"Made {errors.plain(moment_text(session.made))} on {errors.plain(model.device)} in "
        f"{errors.plain(model.dtype)}: **{errors.plain(model.name)}** "
        f"({errors.plain(model.revision or 'no revision')[:12]}), "
        f"{count_text(begin['num_tokens'], 'prompt token')}, {sampling}; {errors.plain(versions)}. "
        + " ".join(
            f"{name.upper()}: layers {errors.plain(format_layers(plan.lazy_layers))} lazy, window "
            f"{plan.window.sink:,} + {plan.window.recent:,}."
            for name, plan in session.plans.items()
            if name != "a"
        )
    )


def texts(session: Session, key: str) -> None:
    """The prompt and the questions, as text."""
    with st.expander("The prompt and the questions", icon=":material/article:"):
        for number, text in enumerate(session.texts):
            label = "Prompt" if number == 0 else f"Further question {number}"
            st.text_area(label, text, height=200 if number == 0 else 80, disabled=False, key=f"{key}_{number}")


def beside(first: Session, second: Session) -> None:
    """Two sessions: what was equal, and each lane's figures."""
    st.header("Both sessions")
    st.markdown(sameness(first, second))
    st.table(_figures(first, second))
    one, other = st.columns(2, gap="medium")
    with one:
        chart(comparison.kl_over_tokens(_series(first, second, lambda answer: answer["kl"], "bcd")), key="both_kl")
    with other:
        chart(
            comparison.latency(_series(first, second, lambda answer: answer["latency_s"], "abcd")), key="both_latency"
        )


def sameness(first: Session, second: Session) -> str:
    """What of two sessions was equal, in words."""
    checks = {
        "model": (first.model.identity, second.model.identity),
        "prompt": (first.begin["input_ids"], second.begin["input_ids"]),
        "plans": (first.plans, second.plans),
        "answers": (_tokens(first), _tokens(second)),
        "device": (first.model.device, second.model.device),
        "versions": (first.versions, second.versions),
    }
    same = [name for name, (a, b) in checks.items() if a == b]
    other = [name for name, (a, b) in checks.items() if a != b]
    parts = [f"Equal: {', '.join(same)}." if same else "", f"Different: {', '.join(other)}." if other else ""]
    return " ".join(part for part in parts if part)


def _tokens(session: Session) -> dict[str, list[Any]]:
    return {name: [answer["tokens"] for answer in lane["answers"]] for name, lane in session.result["lanes"].items()}


def _figures(first: Session, second: Session) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {
        name: []
        for name in ("Lane", "Lazy layers", "KV cache", "Tokens", "Per token, median", "Mean KL", "First difference")
    }
    for label, session in (("first", first), ("second", second)):
        for name, lane in session.result["lanes"].items():
            for column, value in zip(rows.values(), _lane_figures(label, name, lane, session), strict=True):
                column.append(value)
    return rows


def _lane_figures(label: str, name: str, lane: dict[str, Any], session: Session) -> tuple[str, ...]:
    answer = lane["answers"][0]
    kl, parting = answer["kl"], answer["first_divergence"]
    reference = name == "a"
    return (
        f"{label}, {name.upper()}",
        format_layers(session.plans[name].lazy_layers),
        bytes_text(sum(lane["kv_bytes"])),
        str(sum(len(one["tokens"]) for one in lane["answers"])),
        seconds_text(comparison.median(answer["latency_s"][1:])),
        "–" if reference or not kl else f"{sum(kl) / len(kl):.4f} nats",
        "–" if reference else "none" if parting is None else f"token {parting}",
    )


def _series(
    first: Session, second: Session, read_answer: Callable[[dict[str, Any]], Sequence[float]], names: str
) -> dict[tuple[int, str], Sequence[float]]:
    return {
        (number, name): read_answer(lane["answers"][0])
        for number, session in enumerate((first, second))
        for name, lane in session.result["lanes"].items()
        if name in names
    }
