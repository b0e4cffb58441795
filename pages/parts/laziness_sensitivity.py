"""How the ranking of this prompt moves with the window, the number of queries, and the place of the question."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.errors import LightTransferError, PrefillGoneError
from lighttransfer_core.types import LayerScores
from pages.parts import errors, frame, prefill, sensitivity, view
from pages.parts.laziness_snippets import sensitivity_snippet
from pages.parts.picking import switch
from pages.parts.recipe import Recipe
from pages.parts.results import Summary
from pages.parts.sensitivity import PARAMETERS, Varied
from viz import rankings
from viz.components.chart import chart
from viz.rankings import Setting
from viz.units import count_text

_KEY: Final = (
    "Frames mark the lazy half of each column. ρ and the share that stays are with the ranking of now, its question in "
    "the prompt."
)


def draw(recipe: Recipe) -> None:
    """The view."""
    parameter = switch(st, "What varies", "vary", PARAMETERS)
    seen = prefill.look(recipe)
    if seen.found.state != "done" or seen.found.token is None or seen.summary is None:
        st.markdown(
            "Other settings are scored from the kept queries and keys of a run of now, about a second each and without "
            "running the prompt again. Run the prompt once."
        )
        prefill.run_bar(recipe, seen, "Run the prompt")
    elif not seen.summary.scores.informative:
        view.nothing_to_rank(seen.summary)
    else:
        _rankings(recipe, seen.summary, seen.found.token, parameter)
    frame.lesson("sensitivity", "What moves a ranking")
    frame.snippet(sensitivity_snippet(recipe, sensitivity.varied(recipe, PARAMETERS[0], _tokens(seen)).windows))


def _tokens(seen: prefill.View) -> int:
    return seen.summary.num_tokens if seen.summary is not None else 2**31


def _rankings(recipe: Recipe, summary: Summary, token: str, parameter: str) -> None:
    """The chart of a parameter, and what it says."""
    asked = sensitivity.varied(recipe, parameter, summary.num_tokens)
    try:
        with st.spinner(f"Scoring the prompt under {count_text(len(asked.values), 'setting')}"):
            aware = sensitivity.scores(summary.identity, token, asked.questions, "aware")
    except PrefillGoneError as error:
        prefill.forget(recipe.prefill_spec())
        errors.panel(error)
        prefill.run_bar(recipe, prefill.look(recipe), "Run the prompt")
        return
    except LightTransferError as error:
        errors.panel(error)
        return
    found = sensitivity.settings(asked, aware, _before(summary, token, asked))
    _words(found, asked, summary)
    chart(rankings.sensitivity(found, parameter), key="chart_sensitivity")


def _before(summary: Summary, token: str, asked: Varied) -> list[LayerScores]:
    """The same before the question; nothing where the prompt has none, and then it has been said why."""
    try:
        if summary.before.tokens is not None:
            return sensitivity.scores(summary.identity, token, asked.questions, "agnostic")
        reason = summary.before.reason
    except LightTransferError as error:
        reason = str(error)
    st.markdown(f"**Out of the prompt** nothing is known: {errors.plain(reason)}")
    return []


def _words(found: list[Setting], asked: Varied, summary: Summary) -> None:
    """The range over the values, and both sides of the question at the setting of now."""
    others = [one.aware_agreement for one in found if not one.now and one.aware_agreement is not None]
    if others:
        correlations = [one.spearman for one in others]
        stay = [one.shared for one in others]
        st.markdown(
            f"From **{asked.values[0]:,}** to **{asked.values[-1]:,}** {asked.parameter.lower()} the ranking keeps a "
            f"rank correlation of **ρ = {min(correlations):.2f} to {max(correlations):.2f}** with that of now "
            f"({asked.now:,}), and **{_range(stay)} of the {others[0].lazy}** layers of its lazy half stay."
        )
    now = next(one for one in found if one.now)
    if now.agnostic_agreement is not None and summary.before.tokens is not None:
        agreed = now.agnostic_agreement
        st.markdown(
            f"With the question out of the prompt (query-agnostic, {summary.before.tokens:,} of "
            f"{count_text(summary.num_tokens, 'token')}) the setting of now gives ρ = {agreed.spearman:.2f}, and "
            f"{agreed.shared} of {agreed.lazy} stay."
        )
    notes = []
    if asked.left_out:
        notes.append(f"Left out, since the prompt would fit the window: {', '.join(f'{v:,}' for v in asked.left_out)}.")
    if any(one.agnostic is None for one in found) and summary.before.tokens is not None:
        notes.append("Empty columns: up to its question the prompt fits the window.")
    st.caption(" ".join([_KEY, *notes]))


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
