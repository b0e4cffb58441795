"""What the Scale page asks: which model, plan, sizes and device; what is known of their speed; and the predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import streamlit as st

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import MeasuredPoint, Measurement
from lighttransfer_core.cost.roofline import DeviceSpeed, Throughput, predicted_step_s, predicted_throughput
from lighttransfer_core.models.catalogue import CatalogueEntry, find
from lighttransfer_core.service.specs import MeasureSpec
from lighttransfer_core.types import ConversionPlan, ModelSpec, Window
from pages.parts import backend
from pages.parts.address import HALF, INVERSE
from pages.parts.recipe import half_of, resolve_layers
from viz import scale
from viz.chart import Chart
from viz.scale import Mark

_POINTS: Final = 32
_MEASURED_CONTEXTS: Final = 4
_SHORTEST: Final = 1024


@dataclass(frozen=True)
class Question:
    """What is asked. `spec` is the model as it would run; `speed` is what is known of the device, or None.

    `measurement` is the latest one of this model here, whatever its sizes; None for another device.
    """

    spec: ModelSpec
    plan: ConversionPlan
    longest: int
    batch: int
    kv_nbytes: int
    speed: DeviceSpeed | None
    measurement: Measurement | None

    @property
    def contexts(self) -> list[int]:
        """Context lengths of the lines, those of the marks among them."""
        even = {max(self.longest * point // _POINTS, 1) for point in range(1, _POINTS + 1)}
        return sorted(even | {tokens for tokens in self.measured_contexts if tokens <= self.longest})

    @property
    def measured_contexts(self) -> tuple[int, ...]:
        """The lengths to measure at: the longest that the model takes, and halves of the next power of two below."""
        top = min(self.longest, self.spec.max_positions)
        powers = [2**power for power in range(int(math.log2(_SHORTEST)), 31) if 2**power < top]
        return (*powers[1 - _MEASURED_CONTEXTS :], top)

    def measure_spec(self, model: str, dtype: str = "auto") -> MeasureSpec:
        """The run that measures at these sizes."""
        return MeasureSpec(
            model=model, dtype=dtype, plan=self.plan, contexts=self.measured_contexts, batches=(self.batch,)
        )


def plan_by_count(text: str, spec: ModelSpec, window: Window) -> ConversionPlan:
    """The plan of the address for any model, ranked or not: half, of whatever ranking, is half of the layers by count.

    Bytes and time do not depend on which of the convertible layers stream. Raises InvalidPlanError.
    """
    layers = spec.convertible_layers
    if text.strip().lower() in (HALF, INVERSE):
        return ConversionPlan(layers[len(layers) - half_of(len(layers)) :], window)
    return ConversionPlan(resolve_layers(text, spec, None), window)


def entry_of(model: str) -> CatalogueEntry:
    """The catalogue's entry of a model that the sidebar offers."""
    entry = find(model)
    assert entry is not None
    return entry


def facts(model: str, measurement: Measurement | None) -> ModelSpec:
    """The model as it runs here, where that is known, or else as the catalogue has it."""
    if measurement is not None:
        return measurement.spec
    loaded = backend.ask(lambda client: client.spec(model))
    return loaded if isinstance(loaded, ModelSpec) else entry_of(model).spec()


@st.cache_resource(show_spinner=False)
def measurements() -> dict[tuple[str, str], Measurement]:
    """The latest measurement of each model, by name and dtype asked for, that this page process has seen."""
    return {}


def memory_chart(asked: Question) -> Chart:
    """KV bytes of both sides, with the bytes that were counted."""
    marks = [
        Mark(point.tokens, point.with_plan, point.kv_bytes) for point in _points(asked) if point.tokens <= asked.longest
    ]
    contexts = asked.contexts
    sides = [[kv_bytes(asked.spec, plan, tokens, asked.batch) for tokens in contexts] for plan in (None, asked.plan)]
    return scale.memory(contexts, sides[0], sides[1], marks, asked.spec.max_positions, asked.batch)


def latency_chart(asked: Question, speed: DeviceSpeed) -> Chart:
    """Seconds of a step of both sides."""
    marks = [
        Mark.of_latency(point.tokens, point.with_plan, point.latency)
        for point in _points(asked)
        if point.tokens <= asked.longest
    ]
    contexts = asked.contexts
    sides = [
        [predicted_step_s(speed, asked.spec, plan, tokens, asked.batch) for tokens in contexts]
        for plan in (None, asked.plan)
    ]
    return scale.latency(contexts, sides[0], sides[1], marks, asked.spec.max_positions, asked.batch)


def misses(asked: Question, speed: DeviceSpeed) -> list[float]:
    """By what share of the measured latency the prediction misses each mark, smallest first."""
    found = []
    for point in _points(asked):
        plan = asked.plan if point.with_plan else None
        predicted = predicted_step_s(speed, asked.spec, plan, point.tokens, point.batch)
        found.append(abs(predicted / point.latency.median_s - 1))
    return sorted(found)


def throughputs(asked: Question, speed: DeviceSpeed, tokens: int) -> tuple[Throughput | None, Throughput | None]:
    """Predicted, full model and plan, at one context length."""
    full, plan = (predicted_throughput(speed, asked.spec, one, tokens, asked.kv_nbytes) for one in (None, asked.plan))
    return full, plan


def throughput_chart(asked: Question, speed: DeviceSpeed, marks: list[Mark]) -> Chart | None:
    """Tokens per second of both sides at their largest batches; None where nothing fits."""
    contexts = [tokens for tokens in asked.contexts if tokens >= asked.longest // 16]
    pairs = [throughputs(asked, speed, tokens) for tokens in contexts]
    marks = [mark for mark in marks if contexts[0] <= mark.tokens <= asked.longest]
    if not marks and not any(one for pair in pairs for one in pair):
        return None
    return scale.throughput(
        contexts,
        [full for full, _plan in pairs],
        [plan for _full, plan in pairs],
        marks,
        asked.spec.max_positions,
        asked.kv_nbytes,
    )


def _points(asked: Question) -> list[MeasuredPoint]:
    """What was measured at this batch size; the plan's points only where they are of such a plan."""
    if asked.measurement is None:
        return []
    same_plan = _cost(asked.measurement.plan) == _cost(asked.plan)
    return [
        point for point in asked.measurement.points if point.batch == asked.batch and (same_plan or not point.with_plan)
    ]


def _cost(plan: ConversionPlan) -> tuple[int, Window]:
    """What of a plan bytes and time depend on."""
    return len(plan.lazy_layers), plan.window
