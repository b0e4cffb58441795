"""Sets of scores over each other: models, revisions, prompts, windows or metrics, of this visit and from files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, cast

import streamlit as st

from lighttransfer_core.agreement import agreement
from lighttransfer_core.score_sets import ScoreSet
from pages.parts import errors, frame, prefill, score_sets
from pages.parts.laziness_snippets import beside_snippet
from pages.parts.picking import switch
from pages.parts.recipe import Recipe
from viz import score_overlay
from viz.components.chart import chart
from viz.score_overlay import Line, Scale


def draw(recipe: Recipe) -> None:
    """The view."""
    st.markdown(
        "Whatever this visit has scored can be laid over each other, and so can files of scores: run another prompt, "
        "model, window or metric in the sidebar and come back, or open files that were saved here or by the command "
        "`score --output`."
    )
    found = prefill.require_summary(recipe)
    current = score_sets.remember(recipe, found) if found is not None else []
    _files(current)
    names = _choice(current)
    if not names:
        st.info("No scores are chosen. Run a prompt, or open files of scores.", icon=":material/stacks:")
    else:
        _drawn({name: score_sets.known()[name] for name in names})
    frame.lesson("beside", "What can be compared")
    frame.snippet(beside_snippet())


def _files(current: list[str]) -> None:
    """Take scores away, and bring some."""
    down, up = st.columns(2, gap="large", vertical_alignment="bottom")
    with down:
        for name in current:
            one = score_sets.known()[name]
            st.download_button(
                "Download scores (.json)" if one.question == "aware" else "Before the question (.json)",
                one.to_json(),
                file_name=f"scores-{one.question}.json",
                mime="application/json",
                key=f"scores_download_{one.question}",
                on_click="ignore",
                width="stretch",
            )
    up.file_uploader(
        "Open scores (.json)", type=["json"], accept_multiple_files=True, key="score_files", on_change=_take_files
    )
    for error in score_sets.problems():
        errors.panel(error, "Open files that were saved on this page or by the command score.")


def _take_files() -> None:
    """What was opened is drawn at once."""
    added = score_sets.take(st.session_state.score_files)
    drawn = list(dict.fromkeys([*st.session_state.get("beside", []), *added]))
    st.session_state.beside = drawn[-score_sets.MOST_DRAWN :]


def _choice(current: list[str]) -> list[str]:
    """Which sets are drawn; the latest unless others are chosen."""
    names = list(score_sets.known())
    if "beside" in st.session_state:
        new = [name for name in current if name not in st.session_state.get("beside_offered", [])]
        chosen = [name for name in st.session_state.beside if name in names and name not in new]
        st.session_state.beside = [*chosen, *new][-score_sets.MOST_DRAWN :]
    st.session_state.beside_offered = names
    picked = st.multiselect(
        f"Sets of scores, up to {score_sets.MOST_DRAWN}",
        names,
        default=list(dict.fromkeys([*current, *reversed(names)]))[: score_sets.MOST_DRAWN],
        key="beside",
        max_selections=score_sets.MOST_DRAWN,
        placeholder="Choose sets of scores",
    )
    return list(picked)


def _drawn(sets: Mapping[str, ScoreSet]) -> None:
    """The chart and the table."""
    drawn = switch(
        st,
        "Lines show",
        "drawn",
        ["rank", "score"],
        "rank: 1 is the laziest. score: from the lowest to the highest of each set, since metrics have scales of their "
        "own.",
    )
    lines = [Line(f"{number}: {name}", one.scores) for number, (name, one) in enumerate(sets.items(), start=1)]
    chart(score_overlay.overlay(lines, cast(Scale, drawn)), key="chart_beside")
    st.dataframe(_table(sets), hide_index=True, width="stretch")
    st.caption(
        "ρ is Spearman’s rank correlation of the convertible layers; beside it, how many layers the lazy halves share. "
        "Sets of different layers have none."
    )


def _table(sets: Mapping[str, ScoreSet]) -> list[dict[str, Any]]:
    """A row a set: what it is, and how it agrees with every other."""
    numbered = list(enumerate(sets.items(), start=1))
    rows: dict[int, dict[str, Any]] = {
        number: {
            "set": f"{number}: {name}",
            "tokens": one.scores.num_tokens,
            "prompts": one.scores.num_prompts,
            "question": one.question,
            **{f"ρ with {other}": "" for other, _ in numbered},
        }
        for number, (name, one) in numbered
    }
    for (first, (_, one)), (second, (_, other)) in itertools.combinations(numbered, 2):
        told = _agreed(one, other)
        rows[first][f"ρ with {second}"] = rows[second][f"ρ with {first}"] = told
    return list(rows.values())


def _agreed(one: ScoreSet, other: ScoreSet) -> str:
    shapes = [(len(each.scores.values), each.scores.convertible) for each in (one, other)]
    if shapes[0] != shapes[1]:
        return "other layers"
    found = agreement(one.scores, other.scores)
    return f"{found.spearman:.2f}, {found.shared} of {found.lazy}"
