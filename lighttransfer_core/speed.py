"""How fast a model decodes here: what the device reads, what a step takes beside, and steps at any length.

Everything is a generator whose turns are short (one read, one layer filled, one decode step), so that others can have
theirs in between. Nothing is held across a turn, and only the work itself is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
import transformers

from lighttransfer_core.attention import LayerRecord, input_device
from lighttransfer_core.attention.kernels import attend
from lighttransfer_core.batches import Batch, Filling, check_batch, made_up, random_like
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import Latency, MeasuredPoint, Measurement
from lighttransfer_core.cost.roofline import DeviceSpeed
from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import run_prefill
from lighttransfer_core.steps import Result, finished, retold
from lighttransfer_core.types import ConversionPlan, ModelSpec

WARM_UP_STEPS = 3
STEPS = 9
SHORT_TOKENS = 16
FLOOR_BATCHES = (1, 8, 32)
"""Batch sizes at which floor and reading of the cache are measured, whatever else is asked for."""

GROWTH = 1.25
"""Room that growing layers reserve beside what they keep: under a fifth, and one layer's old buffer while it moves."""

_READS = 9
_SPEED_SHARE = 0.4


@dataclass(frozen=True)
class Progress:
    """What is being measured, and how much of everything has been done, 0 to 1."""

    message: str
    fraction: float


def measure(
    lm: LoadedModel, plan: ConversionPlan, contexts: Sequence[int], batches: Sequence[int] = (1,)
) -> Measurement:
    """`measure_steps` in one go."""
    return finished(measure_steps(lm, plan, contexts, batches))


def measure_steps(
    lm: LoadedModel, plan: ConversionPlan, contexts: Sequence[int], batches: Sequence[int] = (1,)
) -> Generator[Progress, None, Measurement]:
    """Measures the device, then each context length with each batch size: full model and plan, step by step in turn.

    Caches are made up, so nothing is prefilled. The last step of a point is at exactly its context length.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    InvalidPromptError
        A context length that the model has no positions for.
    """
    check_measurement(lm.spec, plan, contexts, batches)
    speed = yield from speed_steps(lm, batches)
    grid = [(tokens, batch) for batch in batches for tokens in contexts]
    points: list[MeasuredPoint] = []
    for done, (tokens, batch) in enumerate(grid):
        fraction = _SPEED_SHARE + (1 - _SPEED_SHARE) * done / len(grid)
        said = Progress(f"Decoding at {tokens:,} tokens, batch {batch}", fraction)
        points += yield from told(said, _point_steps(lm, plan, tokens, batch))
    return Measurement(lm.spec, plan, speed, tuple(points))


def check_measurement(spec: ModelSpec, plan: ConversionPlan, contexts: Sequence[int], batches: Sequence[int]) -> None:
    """Refuses what `measure_steps` could not do to the end."""
    check_plan(plan, spec)
    for batch in batches:
        check_batch(batch)
    least = WARM_UP_STEPS + STEPS + 1
    for tokens in contexts:
        if not least <= tokens <= spec.max_positions:
            raise InvalidPromptError(
                f"A context of {tokens:,} tokens cannot be measured: {spec.name} has {spec.max_positions:,} "
                f"positions, and the steps themselves take {least - 1}. Give {least} to {spec.max_positions:,}."
            )
        check_room(spec, tokens - least + 1, least - 1)


def measurement_nbytes(
    spec: ModelSpec, device: torch.device, plan: ConversionPlan, contexts: Sequence[int], batches: Sequence[int]
) -> int:
    """The most bytes that a measurement holds beside the weights."""
    caches = [
        kv_bytes(spec, None, tokens, batch) + kv_bytes(spec, plan, tokens, batch)
        for tokens in contexts
        for batch in batches
    ]
    floor = kv_bytes(spec, None, SHORT_TOKENS + WARM_UP_STEPS + STEPS, max(*FLOOR_BATCHES, *batches))
    # attention over a capped score widens what it reads
    return max(int(GROWTH * max(*caches, floor)), 3 * read_nbytes(device))


def speed_steps(lm: LoadedModel, batches: Sequence[int] = ()) -> Generator[Progress, None, DeviceSpeed]:
    """Measures the device's bandwidth, and by batch size the reading of a cache and the floor of a step.

    The floor is a measured step of the full model with almost no cache, less the time that its bytes take. `batches`
    are sizes to measure at beside `FLOOR_BATCHES`.
    """
    device = input_device(lm.model)
    sizes = sorted({*FLOOR_BATCHES, *batches})
    bandwidth = yield from told(Progress("Reading memory", 0.0), bandwidth_steps(device))
    records = run_prefill(lm, torch.zeros(1, 1, dtype=torch.long)).records
    record = next((record for record in records if record.window is None), records[0])
    rates, floors = [], []
    for done, size in enumerate(sizes, start=1):
        said = Progress(f"A step’s own time, batch {size}", _SPEED_SHARE * done / (1 + len(sizes)))
        rate = yield from told(said, kv_rate_steps(record, size))
        batch = yield from told(said, made_up(lm, None, SHORT_TOKENS, size))
        latency = yield from told(said, latency_steps(batch, STEPS))
        read_s = lm.spec.weight_bytes / bandwidth + sum(batch.cache.layer_nbytes()) / rate
        rates.append((size, rate))
        floors.append((size, max(latency.median_s - read_s, 0.0)))
    return DeviceSpeed(
        bandwidth, tuple(rates), tuple(floors), lm.spec.device, lm.spec.dtype, threads_of(device), versions()
    )


def bandwidth_steps(device: torch.device) -> Filling[float]:
    """Bytes per second of summing a large float32 buffer: the median of several reads, the first left out."""
    buffer = torch.ones(read_nbytes(device) // 4, device=device)
    seconds = []
    for _ in range(1 + _READS):
        yield
        began = time.perf_counter()
        buffer.sum().item()  # the number reaches the host once the device has done its work
        seconds.append(time.perf_counter() - began)
    return buffer.nbytes / statistics.median(seconds[1:])


def kv_rate_steps(record: LayerRecord, batch: int) -> Filling[float]:
    """Bytes per second at which one layer's attention reads a cache of `batch` sequences that is too large for caches.

    `record` is a layer of the model, for its shapes. The median of several reads, the first left out.
    """
    pattern_k, pattern_v, pattern_q = record.key[:, :1], record.value[:, :1], record.query[:, :1]
    tokens = max(read_nbytes(record.key.device) // ((pattern_k.nbytes + pattern_v.nbytes) * batch), 1)
    key, value = random_like(pattern_k, tokens, batch), random_like(pattern_v, tokens, batch)
    query = random_like(pattern_q, 1, batch)
    seconds = []
    for _ in range(1 + _READS):
        yield
        began = time.perf_counter()
        attend(query, key, value, scale=record.scale, softcap=record.softcap)[0].sum().item()
        seconds.append(time.perf_counter() - began)
    return (key.nbytes + value.nbytes) / statistics.median(seconds[1:])


def latency_steps(batch: Batch, steps: int) -> Filling[Latency]:
    """Decodes the warm-up, which does not count, and then `steps` steps, a turn each."""
    seconds = []
    for _ in range(WARM_UP_STEPS + steps):
        seconds.append(batch.step().latency_s)
        yield
    return Latency.of(seconds[WARM_UP_STEPS:])


def _point_steps(lm: LoadedModel, plan: ConversionPlan, tokens: int, batch: int) -> Filling[tuple[MeasuredPoint, ...]]:
    """Both sides at one length, a step each in turn, so that a slow moment of the machine hits both."""
    plans = (None, plan)
    sides: list[Batch] = []
    for one in plans:
        sides.append((yield from made_up(lm, one, tokens - WARM_UP_STEPS - STEPS, batch)))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP_STEPS + STEPS):
        for side, taken in zip(sides, seconds, strict=True):
            taken.append(side.step().latency_s)
            yield
    return tuple(
        MeasuredPoint(
            tokens=tokens,
            batch=batch,
            with_plan=one is not None,
            latency=Latency.of(taken[WARM_UP_STEPS:]),
            kv_bytes=sum(side.cache.layer_nbytes()),
            kv_formula_bytes=kv_bytes(lm.spec, one, tokens, batch),
        )
        for one, side, taken in zip(plans, sides, seconds, strict=True)
    )


def read_nbytes(device: torch.device) -> int:
    """Bytes of the buffers whose reading is timed: more than any cache on the way to the device's memory holds."""
    return 2**28 if device.type == "cpu" else 2**30


def threads_of(device: torch.device) -> int:
    """Threads that compute there; 0 for an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" else 0


def versions() -> str:
    """The libraries that do the work."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def told(said: Progress, steps: Filling[Result]) -> Generator[Progress, None, Result]:
    """The turns of `steps`, each with the same words on it."""
    return (yield from retold(steps, lambda _turn: said))
