"""Saved sessions on a page: what they are, and two of them beside each other."""

from __future__ import annotations

from collections.abc import Sequence
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
            f"{name.upper()}: layers {errors.plain(format_layers(lane.plan.lazy_layers))} lazy, window "
            f"{lane.plan.window.sink:,} + {lane.plan.window.recent:,}{', reads A’s text' if lane.follow else ''}."
            for name, lane in session.settings.items()
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
        chart(comparison.kl_over_tokens(_series(first, second, "kl", "bcd")), key="both_kl")
    with other:
        chart(comparison.latency(_series(first, second, "latency_s", "abcd")), key="both_latency")


def sameness(first: Session, second: Session) -> str:
    """What of two sessions was equal, in words."""
    checks = {
        "model": (first.model.identity, second.model.identity),
        "prompt": (first.begin["input_ids"], second.begin["input_ids"]),
        "plans": (first.settings, second.settings),
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
    """Of all answers together, as the replay counts them."""
    settings, answers = session.settings[name], lane["answers"]
    kl, latency = _joined(answers, "kl"), [value for one in answers for value in one["latency_s"][1:]]
    partings = [(number, one["first_divergence"]) for number, one in enumerate(answers, 1)]
    number, parting = next(((n, step) for n, step in partings if step is not None), (0, None))
    place = f"token {parting}" if number == 1 else f"answer {number}, token {parting}"
    reference = name == "a"
    return (
        f"{label}, {name.upper()}{' on A’s text' if settings.follow else ''}",
        format_layers(settings.plan.lazy_layers),
        bytes_text(sum(lane["kv_bytes"])),
        str(sum(len(one["tokens"]) for one in answers)),
        seconds_text(comparison.median(latency)),
        "–" if reference or not kl else f"{sum(kl) / len(kl):.4f} nats",
        "–" if reference else "none" if parting is None else place,
    )


def _joined(answers: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [value for one in answers for value in one[name]]


def _series(first: Session, second: Session, measure: str, names: str) -> dict[tuple[int, str], Sequence[float]]:
    """Of all answers, one behind the other."""
    return {
        (number, name): _joined(lane["answers"], measure)
        for number, session in enumerate((first, second))
        for name, lane in session.result["lanes"].items()
        if name in names
    }
