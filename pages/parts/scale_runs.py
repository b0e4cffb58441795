"""The runs of the Scale page: measuring a model's speed, and decoding the prompt in whole batches."""

from __future__ import annotations

from typing import Final

import streamlit as st

from lighttransfer_core.cost.measured import BatchRun, MeasuredThroughput, Measurement
from lighttransfer_core.cost.roofline import DeviceSpeed
from lighttransfer_core.service.specs import RunSpec, ThroughputSpec
from pages.parts import backend, prefill, runs, scaling
from pages.parts.errors import plain
from pages.parts.recipe import Recipe
from pages.parts.scale_controls import Choice
from pages.parts.scaling import Question
from viz.components.run_progress import run_progress
from viz.scale import Mark
from viz.units import bytes_text, count_text, rate_text, seconds_text

_ALARMING_MISS: Final = 0.25
_NOT_QUIET: Final = " Perhaps the machine had other work in between: measure again when it is quiet."


def measure_bar(choice: Choice, asked: Question) -> None:
    """The button that measures, the progress of a measurement, or what was measured."""
    if not choice.here:
        st.markdown(
            f"Best case for a device of {choice.bandwidth // 10**9:,} GB/s: it reads at its full bandwidth and does "
            "nothing else. Nothing of this is measured; set the other device to 0 to measure here."
        )
        return
    spec = asked.measure_spec(choice.model, choice.dtype)
    found = runs.outcome(spec)
    if found.state == "running":
        run_progress(found.token, "Measuring: starting", key="measure_run", age_s=found.age_s)
        return
    prefill.troubles(found)
    if found.state == "done" and found.result is not None:
        _take(choice, Measurement.from_dict(found.result))
    if asked.speed is None:
        st.markdown(
            "Latency and throughput need the speed of this device with this model, which is not known yet. **Measure** "
            "loads the model if need be and takes about half a minute for a small one; no prompt is run."
        )
    elif asked.measurement is not None:
        st.markdown(plain(_speed_words(asked.speed, asked.batch)))
        if not _covers(asked.measurement, asked):
            st.markdown("These sizes were not measured yet, so marks are missing; the lines hold for any size.")
    st.button(
        "Measure again" if asked.measurement is not None else "Measure",
        type="secondary" if asked.measurement is not None else "primary",
        key="measure",
        on_click=runs.start,
        args=(spec,),
        disabled=not backend.is_up(),
        help="Decodes on made-up caches at "
        + ", ".join(f"{tokens:,}" for tokens in spec.contexts)
        + f" tokens, batch {asked.batch}, the full model and the plan by turns.",
    )


def _take(choice: Choice, found: Measurement) -> None:
    """A measurement that has just ended serves every question about its model; the page is drawn with it."""
    key = choice.model, choice.dtype
    if scaling.measurements().get(key) != found:
        scaling.measurements()[key] = found
        st.rerun()


def _covers(found: Measurement, asked: Question) -> bool:
    return {(tokens, asked.batch) for tokens in asked.measured_contexts} <= {
        (point.tokens, point.batch) for point in found.points if point.with_plan
    }


def _speed_words(speed: DeviceSpeed, batch: int) -> str:
    threads = f", {count_text(speed.threads, 'thread')}" if speed.threads else ""
    return (
        f"Measured on {speed.device} in {speed.dtype}{threads} ({speed.versions}): memory is read at "
        f"{speed.bandwidth / 1e9:.1f} GB/s, attention reads the cache of a batch of {batch:,} at "
        f"{speed.kv_rate(batch) / 1e9:.1f} GB/s, and a step takes {seconds_text(speed.floor_s(batch))} beyond reading."
    )


def agreement(asked: Question, speed: DeviceSpeed) -> None:
    """How far the lines of the latency chart lie from its marks, where it has any."""
    misses = scaling.misses(asked, speed)
    if not misses:
        return
    text = f"Lines and marks differ by {misses[len(misses) // 2]:.0%} in the median and {misses[-1]:.0%} at most."
    if misses[-1] > _ALARMING_MISS:
        text += _NOT_QUIET
    st.markdown(text)


def predicted_words(asked: Question, speed: DeviceSpeed) -> str:
    """The throughput at the longest context, both sides and their ratio."""
    full, plan = scaling.throughputs(asked, speed, asked.longest)
    if plan is None:  # which keeps no more than the full model
        return (
            f"**Predicted:** at {asked.longest:,} tokens not one sequence fits {bytes_text(asked.kv_nbytes)}, with the "
            "plan or without it. Give more KV memory or a shorter context."
        )
    if full is None:
        return (
            f"**Predicted:** at {asked.longest:,} tokens not one sequence of the full model fits "
            f"{bytes_text(asked.kv_nbytes)}; with the plan {plan.batch:,} fit and give {rate_text(plan.tokens_per_s)}. "
            "Give more KV memory or a shorter context."
        )
    return (
        f"**Predicted:** at {asked.longest:,} tokens and {bytes_text(asked.kv_nbytes)} of KV memory the full model "
        f"gives {rate_text(full.tokens_per_s)} in a batch of {full.batch:,}, the plan "
        f"{rate_text(plan.tokens_per_s)} in a batch of {plan.batch:,}: "
        f"**{plan.tokens_per_s / full.tokens_per_s:.2f} times** as many."
    )


def throughput_spec(recipe: Recipe, asked: Question) -> ThroughputSpec:
    """The run that decodes the recipe's prompt in the batches that fit."""
    return ThroughputSpec(prefill=recipe.prefill_spec(), plan=asked.plan, kv_nbytes=asked.kv_nbytes)


def decoded(recipe: Recipe, choice: Choice, asked: Question) -> MeasuredThroughput | None:
    """What such a run has measured, if there is one."""
    if choice.model != recipe.model or not choice.here:
        return None
    found = runs.outcome(throughput_spec(recipe, asked))
    return MeasuredThroughput.from_dict(found.result) if found.state == "done" and found.result else None


def marks(found: MeasuredThroughput | None) -> list[Mark]:
    """Both sides as marks of the throughput chart."""
    if found is None:
        return []
    return [
        Mark(found.full.tokens, False, found.full.tokens_per_s),
        Mark(found.lazy.tokens, True, found.lazy.tokens_per_s),
    ]


def decode_bar(recipe: Recipe, choice: Choice, asked: Question) -> None:
    """The button that decodes batches of the prompt, or the progress of that."""
    if choice.model != recipe.model or not choice.here:
        st.markdown(
            "Only the sidebar’s model can decode the sidebar’s prompt, and on the backend’s device only. Choose the "
            "model there, and set the other device to 0."
        )
        return
    spec: RunSpec = throughput_spec(recipe, asked)
    found = runs.outcome(spec)
    if found.state == "running":
        run_progress(found.token, "Decoding in batches: starting", key="throughput_run", age_s=found.age_s)
        return
    prefill.troubles(found)
    if found.state != "done":
        st.markdown(
            f"**{plain(recipe.prompt.title)}** is copied into as many sequences as {bytes_text(asked.kv_nbytes)} of KV "
            "memory hold, first for the full model, then for the plan, and decoded. The prompt is run first where no "
            "run of it is kept."
        )
    st.button(
        "Decode again" if found.state == "done" else "Decode in batches",
        key="decode_batches",
        on_click=runs.start,
        args=(spec, recipe.prompt),
        disabled=not backend.is_up(),
    )


def decoded_words(found: MeasuredThroughput, asked: Question) -> None:
    """The measured batches beside their prediction."""
    threads = f", {count_text(found.threads, 'thread')}" if found.threads else ""
    st.markdown(
        f"**Measured** on {plain(found.device)}{threads}: the plan decodes **{found.ratio:.2f} times** as many tokens "
        f"a second as the full model, from a prompt of {count_text(found.prompt_tokens, 'token')} in "
        f"{bytes_text(found.kv_nbytes)} of KV memory.{_predicted_ratio(found, asked)}"
    )
    columns = (("Full model", found.full), ("Plan", found.lazy))
    predicted: tuple[str, ...] = ("–", "–")
    if asked.speed is not None:
        pair = scaling.throughputs(asked, asked.speed, found.full.tokens)
        predicted = tuple("–" if one is None else rate_text(one.tokens_per_s) for one in pair)
    held = "Process memory then, measured" if found.device == "cpu" else "Held on the device then, measured"
    rows = [
        {**_column(run, text), held: bytes_text(run.device_bytes)}
        for (_name, run), text in zip(columns, predicted, strict=True)
    ]
    st.table(
        {
            "At its largest batch": list(rows[0]),
            **{name: list(row.values()) for (name, _run), row in zip(columns, rows, strict=True)},
        }
    )
    if asked.speed is not None:
        st.markdown(decoded_agreement(found, asked, asked.speed))


def decoded_agreement(found: MeasuredThroughput, asked: Question, speed: DeviceSpeed) -> str:
    """How far the tokens a second of the batches lie from their prediction; nothing where none is predicted."""
    pair = scaling.throughputs(asked, speed, found.full.tokens)
    gaps = [
        (name, run.tokens_per_s / one.tokens_per_s - 1)
        for name, run, one in zip(("full model", "plan"), (found.full, found.lazy), pair, strict=True)
        if one is not None
    ]
    if not gaps:
        return ""
    told = " and ".join(f"by {gap:+.0%} for the {name}" for name, gap in gaps)
    text = f"Measured tokens a second differ from the predicted ones {told}."
    if max(abs(gap) for _name, gap in gaps) <= _ALARMING_MISS:
        return text
    known, largest = max(size for size, _floor in speed.floors), max(found.full.batch, found.lazy.batch)
    if largest > known:
        text += (
            f" The device was measured with at most {count_text(known, 'sequence')} at once, and here {largest:,} are "
            f"decoded: set “Batch of the curves” to {largest:,} and measure it again."
        )
    return text + _NOT_QUIET


def _predicted_ratio(found: MeasuredThroughput, asked: Question) -> str:
    if asked.speed is None:
        return " Measure the device above to see the prediction beside it."
    full, plan = scaling.throughputs(asked, asked.speed, found.full.tokens)
    if full is None or plan is None:
        return ""
    return f" **Predicted** at these sizes: {plan.tokens_per_s / full.tokens_per_s:.2f} times."


def _column(run: BatchRun, predicted: str) -> dict[str, str]:
    latency = run.latency
    return {
        "Sequences at once": f"{run.batch:,}",
        "Throughput, measured": rate_text(run.tokens_per_s),
        "Throughput, predicted": predicted,
        f"Step, median of {latency.steps}, measured": seconds_text(latency.median_s),
        "Step, quartiles, measured": f"{seconds_text(latency.low_s)} to {seconds_text(latency.high_s)}",
        "KV cache kept, measured": bytes_text(run.kv_bytes),
        "KV cache kept, formula": bytes_text(run.kv_formula_bytes),
        "KV cache with room to grow, measured": bytes_text(run.allocated_bytes),
    }
