"""Tokens per second of one prompt decoded as often as a fixed KV memory allows: the full model, then a plan."""

from __future__ import annotations

from collections.abc import Generator

from lighttransfer_core.attention import input_device
from lighttransfer_core.batches import Batch, repeated
from lighttransfer_core.cost.device import memory_stats
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.cost.measured import BatchRun, MeasuredThroughput
from lighttransfer_core.cost.roofline import largest_batch
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.speed import (
    GROWTH,
    WARM_UP_STEPS,
    Progress,
    latency_steps,
    threads_of,
    told,
    versions,
)
from lighttransfer_core.steps import finished
from lighttransfer_core.types import ConversionPlan, ModelSpec

DEFAULT_STEPS = 16


def measure_throughput(
    prefill: Prefill, plan: ConversionPlan, kv_nbytes: int, steps: int = DEFAULT_STEPS
) -> MeasuredThroughput:
    """`throughput_steps` in one go."""
    return finished(throughput_steps(prefill, plan, kv_nbytes, steps))


def throughput_steps(
    prefill: Prefill, plan: ConversionPlan, kv_nbytes: int, steps: int = DEFAULT_STEPS
) -> Generator[Progress, None, MeasuredThroughput]:
    """Decodes a kept prompt at the largest batch whose keys and values fit `kv_nbytes`: the full model, then the plan.

    Every sequence has keys and values of its own, and a batch fits if it still does at its last step. Decoding is
    greedy and goes on past the end of a text.

    Raises
    ------
    InvalidPlanError
    InvalidInputError
        Not one sequence of the full model fits.
    InvalidPromptError
        The texts would outgrow the model's positions.
    """
    spec, device = prefill.spec, input_device(prefill.lm.model)
    check_plan(plan, spec)
    tokens = final_tokens(spec, prefill.num_tokens, steps)
    sizes = [largest_batch(spec, one, tokens, kv_nbytes) for one in (None, plan)]
    if not sizes[0]:
        raise InvalidInputError(
            f"kv_nbytes={kv_nbytes:,} holds not one sequence of {tokens:,} tokens: give at least "
            f"{kv_bytes(spec, None, tokens):,}."
        )
    full = yield from _run_steps(prefill, None, sizes[0], steps, "full model", 0.0)
    lazy = yield from _run_steps(prefill, plan, sizes[1], steps, "plan", 0.5)
    return MeasuredThroughput(
        spec, plan, kv_nbytes, prefill.num_tokens, full, lazy, str(device), threads_of(device), versions()
    )


def final_tokens(spec: ModelSpec, num_tokens: int, steps: int) -> int:
    """Length of a sequence at the last step; raises InvalidPromptError past the model's last position."""
    check_room(spec, num_tokens, WARM_UP_STEPS + steps)
    return num_tokens + WARM_UP_STEPS + steps


def throughput_nbytes(kv_nbytes: int) -> int:
    """The most bytes that a throughput run holds beside weights and prefill."""
    return int(GROWTH * kv_nbytes)


def _run_steps(
    prefill: Prefill, plan: ConversionPlan | None, size: int, steps: int, name: str, began: float
) -> Generator[Progress, None, BatchRun]:
    copying = Progress(f"Copying the prompt {size} times, {name}", began)
    batch: Batch = yield from told(copying, repeated(prefill, plan, size))
    decoding = Progress(f"Decoding {size} sequences, {name}", began + 0.25)
    latency = yield from told(decoding, latency_steps(batch, steps))
    tokens = batch.cache.seen_tokens
    return BatchRun(
        batch=size,
        tokens=tokens,
        latency=latency,
        kv_bytes=sum(batch.cache.layer_nbytes()),
        kv_formula_bytes=kv_bytes(prefill.spec, plan, tokens, size),
        allocated_bytes=sum(batch.cache.layer_allocated_nbytes()),
        device_bytes=memory_stats(input_device(prefill.lm.model)).allocated,
    )
