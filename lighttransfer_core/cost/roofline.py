"""What a decode step reads, how long that takes on a measured device, and how many sequences fit a memory.

A step reads the weights once and the keys and values that the cache keeps, so its time is foretold from bytes. Nothing
here measures: a `DeviceSpeed` holds what was measured elsewhere. Knows specs and plans only, and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.types import ConversionPlan, JsonRecord, ModelSpec

ByBatch = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class DeviceSpeed(JsonRecord):
    """How fast one device decodes one model.

    Attributes
    ----------
    bandwidth
        Bytes per second of a plain read of a buffer that no cache of the processor holds.
    kv_rates
        Bytes per second at which attention reads a cache, by batch size, ascending; empty: as fast as `bandwidth`.
    floors
        Seconds of a step beyond the reading, by batch size, ascending: launches, products, normalisations; empty: none.
    device, dtype
        Where, and in which precision of the weights.
    threads
        Of the processor; 0 where that says nothing.
    versions
        Of the libraries that did the work.
    """

    bandwidth: float
    kv_rates: ByBatch = ()
    floors: ByBatch = ()
    device: str = ""
    dtype: str = ""
    threads: int = 0
    versions: str = ""

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise InvalidInputError(f"bandwidth={self.bandwidth!r} is out of range: give bytes per second, above 0.")
        for name in ("kv_rates", "floors"):
            pairs = tuple((int(batch), float(value)) for batch, value in getattr(self, name))
            object.__setattr__(self, name, tuple(sorted(pairs)))

    @classmethod
    def ideal(cls, bandwidth: float) -> Self:
        """A device that does nothing but read, at its full bandwidth: the least time that a step can take."""
        return cls(bandwidth)

    def kv_rate(self, batch: int) -> float:
        """Bytes per second at which attention reads the cache of a batch: interpolated, and level past the ends."""
        return _between(self.kv_rates, batch, steady=True) if self.kv_rates else self.bandwidth

    def floor_s(self, batch: int) -> float:
        """Seconds of a step beyond the reading: interpolated, and past the last batch measured by its last slope."""
        return max(_between(self.floors, batch, steady=False), 0.0) if self.floors else 0.0


@dataclass(frozen=True)
class Throughput(JsonRecord):
    """The most sequences that fit a memory, and what decoding them together gives."""

    batch: int
    step_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.batch / self.step_s


def step_bytes(spec: ModelSpec, plan: ConversionPlan | None, tokens: int, batch: int = 1) -> int:
    """Bytes that a decode step reads: all weights once, and the keys and values kept of `batch` sequences.

    An input embedding that the output does not share is counted too, though a step reads a few of its rows only.
    """
    return spec.weight_bytes + kv_bytes(spec, plan, tokens, batch)


def least_step_s(
    speed: DeviceSpeed, spec: ModelSpec, plan: ConversionPlan | None, tokens: int, batch: int = 1
) -> float:
    """Seconds of a step that does nothing but read, at the device's full bandwidth: no step can be faster."""
    return step_bytes(spec, plan, tokens, batch) / speed.bandwidth


def predicted_step_s(
    speed: DeviceSpeed, spec: ModelSpec, plan: ConversionPlan | None, tokens: int, batch: int = 1
) -> float:
    """Seconds of a step: the floor, the weights at the bandwidth, the cache at the rate at which attention reads it."""
    reading = spec.weight_bytes / speed.bandwidth + kv_bytes(spec, plan, tokens, batch) / speed.kv_rate(batch)
    return speed.floor_s(batch) + reading


def largest_batch(spec: ModelSpec, plan: ConversionPlan | None, tokens: int, kv_nbytes: int) -> int:
    """Sequences of `tokens` tokens whose keys and values fit `kv_nbytes` together; weights are not counted in it."""
    if tokens < 1:
        raise InvalidInputError(f"tokens={tokens} is out of range: give at least 1.")
    return max(kv_nbytes, 0) // kv_bytes(spec, plan, tokens)


def predicted_throughput(
    speed: DeviceSpeed, spec: ModelSpec, plan: ConversionPlan | None, tokens: int, kv_nbytes: int
) -> Throughput | None:
    """The largest batch that fits and its predicted step; None where not one sequence fits."""
    batch = largest_batch(spec, plan, tokens, kv_nbytes)
    return Throughput(batch, predicted_step_s(speed, spec, plan, tokens, batch)) if batch else None


def _between(pairs: ByBatch, batch: int, steady: bool) -> float:
    """The value at a batch size from those measured, which ascend: linear between two; past the ends level if `steady`,
    else on along the nearest line."""
    if len(pairs) == 1:
        return pairs[0][1]
    if steady and not pairs[0][0] <= batch <= pairs[-1][0]:
        return pairs[0][1] if batch < pairs[0][0] else pairs[-1][1]
    place = next((i for i, (measured, _) in enumerate(pairs[1:-1], start=1) if batch <= measured), len(pairs) - 1)
    (low, at_low), (high, at_high) = pairs[place - 1], pairs[place]
    return at_low + (at_high - at_low) * (batch - low) / (high - low)
