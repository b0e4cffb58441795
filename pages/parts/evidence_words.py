"""What a sweep says, in words and tables."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lighttransfer_core.frontier.orders import CALIBRATED
from lighttransfer_core.frontier.pooling import part_of
from lighttransfer_core.frontier.results import ExampleResult, Sweep
from lighttransfer_core.frontier.summary import (
    CHANCE,
    Cell,
    compared,
    is_random,
    lead,
    lead_text,
    of_fewer,
    others_named,
    scored,
    spoken_range,
)
from lighttransfer_core.frontier.verdict import ENOUGH, KEPT, Verdict
from lighttransfer_core.layer_sets import layers_lazy
from lighttransfer_core.selection import RECOMMENDED_METRIC
from pages.parts import errors, evidence
from pages.parts.metrics import metric_title, order_title
from pages.parts.picking import pick
from viz.units import count_text, moment_text


def verdict(sweep: Sweep, cell: Cell, is_mine: bool, pooled: Sequence[Sweep]) -> None:
    """Which ranking to use for this model, or that the evidence does not say.

    Parameters
    ----------
    is_mine
        Whether the sweep is of the sidebar's model.
    pooled
        What is known of that model by several sweeps together.
    """
    found = evidence.judged(sweep, cell)
    model = errors.plain(sweep.header.model.name)
    if sweep.results and all(one.full.score is None for one in sweep.results):
        st.info(
            "Here texts are read and nothing is answered, so there is no score to keep: the chart shows by how much "
            "less likely the texts become.",
            icon=":material/menu_book:",
        )
        return
    if not found:
        st.info(
            f"There are not enough prompts to say: each task needs {ENOUGH} at this length and window. Measure more of "
            f"them {'below' if evidence.can_go_on(sweep) else 'on the command line, which knows their file'}.",
            icon=":material/hourglass_empty:",
        )
        return
    best = found[0]
    if best.share == 0:
        st.markdown(
            f"For **{model}**, by these results, no ranking keeps {KEPT:.0%} of the score on every task, even at the "
            "smallest share."
        )
    else:
        static = any(one.name == best.ranking and one.lazy is None for one in sweep.header.spec.orders)
        applied = (
            f" On the page **Convert** the rule *Measured* has it: {order_title(best.ranking)}."
            if static and is_mine
            else ""
        )
        st.markdown(
            f"For **{model}**, by these results: **{_title(best.ranking)}** (`{best.ranking}`). {_reach(best)}{applied}"
        )
    for name, role in (
        (RECOMMENDED_METRIC, "Recommended, from each prompt alone, for what is asked in it and what is asked later"),
        (evidence.PAPER, "The paper’s"),
    ):
        other = next((one for one in found if one.ranking == name), None)
        if other is not None and other is not best:
            st.markdown(f"{role}: **{_title(name)}**. {_reach(other)}")
    if is_mine:
        _together(sweep, pooled, cell)


def _together(sweep: Sweep, pooled: Sequence[Sweep], cell: Cell) -> None:
    """What goes furthest by a sweep together with others, where these have more prompts for the cell."""
    own = sum(cell.holds(one) for one in sweep.results)
    for all_of_them in pooled:
        more = sum(cell.holds(one) for one in all_of_them.results)
        found = evidence.judged(all_of_them, cell)
        if part_of(sweep) not in all_of_them.parts or more == own or not found:
            continue
        named = dict.fromkeys([found[0].ranking, RECOMMENDED_METRIC, evidence.PAPER])
        by_name = {one.ranking: one for one in found if one.ranking in named}
        told = "; ".join(f"{_title(name)}, {_briefly(by_name[name])}" for name in named if name in by_name)
        st.caption(
            f"By {len(all_of_them.parts)} sweeps together, of other prompts and rankings too, {KEPT:.0%} of every task "
            f"is kept by {told}."
        )


def _briefly(one: Verdict) -> str:
    kept = one.weakest.ratio
    reach = f"up to {one.share:.0%}" if one.share else "at no share"
    return (
        f"{reach} ({kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}] on {one.task}, {count_text(kept.count, 'prompt')})"
    )


def _reach(one: Verdict) -> str:
    kept = one.weakest.ratio
    interval = f"{kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}] on {one.task}, {count_text(kept.count, 'prompt')}"
    if one.share == 0:
        return (
            f"It loses more than {1 - KEPT:.0%} of the full model’s score at every share tried: with "
            f"{count_text(one.weakest.lazy, 'lazy layer')} it kept {interval}."
        )
    return (
        f"It keeps at least {KEPT:.0%} of the full model’s score on every task with up to {one.share:.0%} of the "
        f"layers streaming; the weakest is {interval}."
    )


def differences(sweep: Sweep, cell: Cell) -> None:
    """Every ranking's lead over chance and over one of the others at one share, and its score at each."""
    names, layers = compared(sweep), len(sweep.header.model.convertible_layers)
    shares = evidence.by_title(sorted(sweep.header.spec.shares), "{:.0%}".format)
    middle = min(shares, key=lambda title: abs(shares[title] - 0.5))
    boxes = st.columns([2, 1, 1])
    beside = pick(boxes[0], "Leads over", "beside", sorted(names, key=lambda name: name != evidence.PAPER))
    at = pick(boxes[1], "With lazy layers", "beside_at", sorted(shares, key=lambda title: title != middle))
    held, lazy = [one for one in sweep.results if cell.holds(one)], layers_lazy(shares[at], layers)
    rows = []
    for name in names:
        asked = sum(name in one.orders[cell.window] for one in held)
        if not asked:
            continue
        row: dict[str, str | int] = {"ranking": name, "prompts": asked}
        for title, other in (("chance", CHANCE), (beside, beside)):
            found = lead(held, cell, name, others_named(held, other), lazy, scored)
            row[f"over {title}, {at} lazy"] = lead_text(found, asked)
        for title, share in shares.items():
            kept = evidence.at(sweep, cell, name, layers_lazy(share, layers))
            row[f"{title} lazy"] = "" if kept is None else of_fewer(kept.value.text, kept.value.count, asked)
        rows.append(row)
    # names stay where they are while the other columns scroll
    st.dataframe(
        rows, hide_index=True, width="stretch", column_config={"ranking": st.column_config.TextColumn(pinned=True)}
    )
    st.caption(
        "Means over the prompts with 95% intervals from resampled prompts; differences are paired, on the same "
        f"prompts, with a dot where the interval leaves out zero. {_chance(held, cell)}Where all prompts "
        "agree an interval has no width, however few they are."
    )


def _chance(held: Sequence[ExampleResult], cell: Cell) -> str:
    orders = {sum(map(is_random, one.orders[cell.window])) for one in held} - {0}
    if not orders:
        return ""
    one = "one random order" if orders == {1} else f"the mean of {spoken_range(orders)} random orders"
    return f"Chance is {one}. "


def made(sweep: Sweep) -> None:
    """Everything that the numbers depend on."""
    header, spec = sweep.header, sweep.header.spec
    model = header.model
    notes = f" {model.notes}" if model.notes else ""
    seeds = f"seeds from {spec.first_seed:,}" if not sweep.parts else f"{len(sweep.parts)} sweeps together"
    most = spec.max_new_tokens
    limit = f" of at most {count_text(most, 'token')}" if most else " as long as the tasks allow"
    begun = f"The first was begun {moment_text(header.made)}." if sweep.parts else f"Begun {moment_text(header.made)}."
    static = "".join(dict.fromkeys(f" {one.name}: {one.made}." for one in spec.orders))
    st.caption(
        errors.plain(
            f"{model.name} in {model.dtype} on {model.device}.{notes} {count_text(len(sweep.results), 'prompt')}, "
            f"{seeds}, last {spec.last} queries, {spec.rendering} rendering, answers{limit}. "
            f"{header.versions}. {begun}{static}"
        )
    )


def _title(name: str) -> str:
    return (
        f"{order_title(name)}, one order from calibration prompts"
        if name.startswith(CALIBRATED)
        else metric_title(name)
    )
