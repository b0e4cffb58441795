"""What the measuring runs do in turns: the speed of a model on this device, and the throughput of whole batches."""

from __future__ import annotations

from lighttransfer_core.attention import input_device
from lighttransfer_core.cost.formulas import kv_bytes
from lighttransfer_core.errors import DoesNotFitError
from lighttransfer_core.keep import Keep, prefill_nbytes
from lighttransfer_core.models.fit import check_plan
from lighttransfer_core.service.admission import PrefillKey
from lighttransfer_core.service.engine import largest
from lighttransfer_core.service.runs import Event
from lighttransfer_core.service.specs import MeasureSpec, ThroughputSpec
from lighttransfer_core.service.task import Task, obtain_prefill
from lighttransfer_core.service.turns import Steps
from lighttransfer_core.speed import Progress, check_measurement, measure_steps, measurement_nbytes
from lighttransfer_core.steps import retold
from lighttransfer_core.throughput import final_tokens, throughput_nbytes, throughput_steps
from lighttransfer_core.types import ModelSpec


def measure(task: Task, spec: MeasureSpec) -> Steps:
    """Measures what the spec asks for. The result is a `Measurement`."""
    lm, load = task.lm, task.load
    check_measurement(lm.spec, spec.plan, spec.contexts, spec.batches)

    def nbytes(contexts: tuple[int, ...]) -> int:
        return measurement_nbytes(lm.spec, input_device(lm.model), spec.plan, contexts, spec.batches)

    def refusal(needed: int, most: int) -> DoesNotFitError:
        tokens = largest(max(spec.contexts), lambda count: nbytes((count,)) <= most)
        offer = f"contexts of up to {tokens:,} tokens with batches of up to {max(spec.batches):,}" if tokens else None
        return refused(needed, most, offer)

    no_prefill = PrefillKey(load, "")
    granted = yield from task.engine.ledger.admit(load, lambda _kept: nbytes(spec.contexts), refusal, no_prefill)
    task.stack.enter_context(granted)
    found = yield from retold(measure_steps(lm, spec.plan, spec.contexts, spec.batches), _event)
    return found.to_dict()


def decode_batches(task: Task, spec: ThroughputSpec, text: str) -> Steps:
    """Decodes the prompt in the batches that fit. The result is a `MeasuredThroughput`."""
    model, asked = task.lm.spec, spec.prefill
    check_plan(spec.plan, model)
    prompt = task.engine.render(task.lm, text, asked)
    keep = Keep(asked.query_rows, asked.query_layers, asked.query_host)
    room = task.engine.ledger.limit(task.load) - prefill_nbytes(model, prompt.num_tokens, keep)
    extra = batches_nbytes(model, spec, prompt.num_tokens, room)
    prefill, _key, _reused = yield from obtain_prefill(task, asked, prompt, extra)
    found = yield from retold(throughput_steps(prefill, spec.plan, spec.kv_nbytes, spec.steps), _event)
    return found.to_dict()


def batches_nbytes(model: ModelSpec, spec: ThroughputSpec, num_tokens: int, room: int) -> int:
    """The most bytes that a throughput run holds beside weights and prefill, of `room` that can be had.

    Raises
    ------
    DoesNotFitError
        The KV memory holds not one sequence of the full model, or is more than can be had.
    InvalidPromptError
        The texts would outgrow the model's positions.
    """
    one = kv_bytes(model, None, final_tokens(model, num_tokens, spec.steps))
    most = largest(spec.kv_nbytes, lambda kv_nbytes: throughput_nbytes(kv_nbytes) <= room)
    needed = throughput_nbytes(spec.kv_nbytes)
    if spec.kv_nbytes < one:
        raise DoesNotFitError(
            f"One sequence of the full model takes {one:,} bytes of keys and values, and the KV memory is "
            f"{spec.kv_nbytes:,}.",
            f"a KV memory of {-(-one // 2**20):,} MiB" if throughput_nbytes(one) <= room else None,
        )
    if needed > room:
        raise refused(needed, room, f"a KV memory of {most // 2**20:,} MiB" if one <= most else None)
    return needed


def _event(progress: Progress) -> Event:
    return {"kind": "measuring", "message": progress.message, "fraction": round(progress.fraction, 3)}


def refused(needed: int, most: int, offer: str | None) -> DoesNotFitError:
    """The error for a run that needs more bytes than can be given."""
    return DoesNotFitError(
        f"This run would hold {needed:,} bytes and {max(most, 0):,} can be given."
        + (f" What fits: {offer}." if offer else " Start the backend with a larger --budget."),
        offer,
    )
