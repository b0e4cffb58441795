"""What a measurement of decoding says: records with everything that it takes to read or repeat them. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from lighttransfer_core.cost.roofline import DeviceSpeed
from lighttransfer_core.types import ConversionPlan, JsonRecord, ModelSpec

PAPER_THROUGHPUT: Final = {4096: 1.44, 8192: 1.78, 16_384: 2.17, 32_768: 1.75}
"""Times the tokens per second of the full model, by context length, each side at its largest batch.

Source: LightTransfer (arXiv 2410.13846), table 5: Mistral-7B with half of the layers lazy."""


@dataclass(frozen=True)
class Latency(JsonRecord):
    """Seconds of a decode step: the median of `steps` steps, and their quartiles."""

    median_s: float
    low_s: float
    high_s: float
    steps: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Of at least one step."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0], 1)
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(middle, low, high, len(seconds))


@dataclass(frozen=True)
class MeasuredPoint(JsonRecord):
    """Decoding at one context length and batch size, with the plan or without.

    `tokens` is the length of each sequence at the last step; `kv_bytes` were counted from the tensors then, and
    `kv_formula_bytes` is what the formula says.
    """

    tokens: int
    batch: int
    with_plan: bool
    latency: Latency
    kv_bytes: int
    kv_formula_bytes: int

    def __post_init__(self) -> None:
        if isinstance(self.latency, dict):
            object.__setattr__(self, "latency", Latency.from_dict(self.latency))


@dataclass(frozen=True)
class Measurement(JsonRecord):
    """How fast a model decodes on a device: the speed behind every prediction, and the points to hold it against."""

    spec: ModelSpec
    plan: ConversionPlan
    speed: DeviceSpeed
    points: tuple[MeasuredPoint, ...]

    def __post_init__(self) -> None:
        if isinstance(self.spec, dict):
            object.__setattr__(self, "spec", ModelSpec.from_dict(self.spec))
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))
        if isinstance(self.speed, dict):
            object.__setattr__(self, "speed", DeviceSpeed.from_dict(self.speed))
        points = (MeasuredPoint.from_dict(point) if isinstance(point, dict) else point for point in self.points)
        object.__setattr__(self, "points", tuple(points))


@dataclass(frozen=True)
class BatchRun(JsonRecord):
    """One prompt decoded `batch` times at once.

    Attributes
    ----------
    tokens
        Length of each sequence at the last step.
    latency
        Of a step of the whole batch, warm-up excluded.
    kv_bytes, kv_formula_bytes, allocated_bytes
        Keys and values kept at the last step: counted from the tensors, by formula, and with the room to grow.
    device_bytes
        What the device said was held then, weights included; on the CPU the process's resident memory.
    """

    batch: int
    tokens: int
    latency: Latency
    kv_bytes: int
    kv_formula_bytes: int
    allocated_bytes: int
    device_bytes: int

    def __post_init__(self) -> None:
        if isinstance(self.latency, dict):
            object.__setattr__(self, "latency", Latency.from_dict(self.latency))

    @property
    def tokens_per_s(self) -> float:
        """All sequences together, at the median step."""
        return self.batch / self.latency.median_s


@dataclass(frozen=True)
class MeasuredThroughput(JsonRecord):
    """The full model and the plan, one after the other, each at the largest batch that fits the same KV memory.

    `prompt_tokens` is the length of the prompt that every sequence began with.
    """

    spec: ModelSpec
    plan: ConversionPlan
    kv_nbytes: int
    prompt_tokens: int
    full: BatchRun
    lazy: BatchRun
    device: str = ""
    threads: int = 0
    versions: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.spec, dict):
            object.__setattr__(self, "spec", ModelSpec.from_dict(self.spec))
        if isinstance(self.plan, dict):
            object.__setattr__(self, "plan", ConversionPlan.from_dict(self.plan))
        for name in ("full", "lazy"):
            if isinstance(run := getattr(self, name), dict):
                object.__setattr__(self, name, BatchRun.from_dict(run))

    @property
    def ratio(self) -> float:
        """Tokens per second of the plan over those of the full model."""
        return self.lazy.tokens_per_s / self.full.tokens_per_s
