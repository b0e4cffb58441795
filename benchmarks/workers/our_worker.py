"""Ours: `python -m benchmarks.workers.our_worker FOLDER DEVICE SINK RECENT`.

Models, caches and steps are the library's, called as the pages call them. Which half of the layers is lazy does not
matter for time and bytes, so it is every second one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.utils.logging import disable_progress_bar

from benchmarks.timing import interleaved
from benchmarks.workers.protocol import FULL, HALF, PLANNED, RECORDED, serve
from benchmarks.workers.worker import Decoder, Prompted, Worker
from lighttransfer_core.attention import few_rows
from lighttransfer_core.batches import Batch, made_up, repeated
from lighttransfer_core.decoding import Branch, Lane, Sampler
from lighttransfer_core.errors import ShortPromptWarning
from lighttransfer_core.generation import hybrid
from lighttransfer_core.laziness import OnTheFly, score_layers
from lighttransfer_core.models import LoadedModel, dots, load_model
from lighttransfer_core.prefill import Prefill, run_prefill
from lighttransfer_core.steps import finished as result_of
from lighttransfer_core.types import ConversionPlan, Window

_TILE = 256
_ATTENTION, _PRODUCTS, _COPIES, _REST = "attention", "products of the linear layers", "copies", "everything else"
_OPERATIONS = {
    **dict.fromkeys(("logaddexp", "logsumexp"), _ATTENTION),
    **dict.fromkeys(("mm", "bmm", "addmm", "mv", "addmv", "linear_pointwise", "products"), _PRODUCTS),
    **dict.fromkeys(("copy", "cat", "clone", "index", "index_put", "index_copy", "index_select"), _COPIES),
}
"""Parts of a step by the operations that they are made of, beside the fused kernels of attention."""


@dataclass(frozen=True)
class BatchDecoder:
    """A batch of the library, as the suite steps it."""

    batch: Batch

    def step(self) -> float:
        return self.batch.step().latency_s

    def kv_bytes(self) -> int:
        return sum(self.batch.cache.layer_nbytes())


class OurWorker(Worker[Prefill]):
    """Keeps prompts as prefills, from which every plan branches off."""

    def __init__(self, folder: str, device: str, sink: str, recent: str) -> None:
        super().__init__(folder, device)
        self._window = Window(int(sink), int(recent))

    def load(self, dtype: str) -> LoadedModel:
        return load_model(self.folder, device=self.device, dtype=dtype)

    def spec(self, dtype: str) -> dict[str, Any]:
        """The model's facts in a precision."""
        facts: dict[str, Any] = self.model(dtype).spec.to_dict()
        return facts

    def run(self, side: str, ids: Tensor, chunk: int) -> Prompted[Any]:
        if side == RECORDED:
            prefill = run_prefill(self.model("float32"), ids, chunk_tokens=chunk or None)
            return Prompted(prefill, prefill.nbytes)
        return self._hybrid(self.plan(HALF) if side == PLANNED else OnTheFly(0.5, self._window), ids, chunk)

    def prompted_by(self, side: str) -> str:
        return RECORDED

    def decoder(self, side: str, finished: Prefill, batch: int, dtype: str) -> Decoder:
        return BatchDecoder(result_of(repeated(recast(finished, self.model(dtype)), self.plan(side), batch)))

    def made_up(self, side: str, tokens: int, batch: int, dtype: str) -> Decoder:
        return BatchDecoder(result_of(made_up(self.model(dtype), self.plan(side), tokens, batch)))

    def lazy_layers(self, side: str, tokens: int) -> int | None:
        plan = self.plan(side)
        return None if plan is None else len(plan.lazy_layers)

    def plan(self, side: str) -> ConversionPlan | None:
        """The layers that are lazy on a side; None: none of them."""
        layers = self.model("float32").spec.convertible_layers
        return None if side == FULL else ConversionPlan(layers[1::2] if side == HALF else layers, self._window)

    def waits(self, tokens: int, repeats: int) -> dict[str, Any]:
        """Seconds of what a page waits for after a prefill, each measured `repeats` times by turns."""
        prefill, plan = self.prompted(RECORDED, tokens).finished, self.plan(HALF)
        size = min(_TILE, tokens)
        sides: dict[str, Callable[[], Any]] = {
            "score": partial(score_layers, prefill, self._window),
            "tile": partial(prefill.attention, 0, 0, (tokens - size, tokens), (0, size)),
            "second": partial(second_token, prefill, plan),
        }
        measured = interleaved(sides, repeats, self.device, warmup=1)
        return {"prefill": prefill.seconds, **{name: [one for [one] in measured.seconds[name]] for name in sides}}

    def profile(self, side: str, count: int) -> dict[str, float]:
        """Shares of the time of a few steps that each part of a step takes."""
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        with shown_to_profilers(), profile(activities=activities) as seen:
            self.steps(side, count)
        shares = dict.fromkeys((_ATTENTION, _PRODUCTS, _COPIES, _REST), 0.0)
        for operation in seen.key_averages():
            if operation.device_type == DeviceType.CPU:
                cuda = self.device.type == "cuda"
                taken = operation.self_device_time_total if cuda else operation.self_cpu_time_total
                shares[part_of(operation.key)] += taken
        total = sum(shares.values())
        return {name: taken / total for name, taken in shares.items()}

    @torch.no_grad()
    def _hybrid(self, plan: ConversionPlan | OnTheFly | None, ids: Tensor, chunk: int) -> Prompted[Any]:
        assert plan is not None
        model = self.model("float32").model
        with hybrid(model, plan, prompt_tokens=ids.shape[1] if chunk else None) as cache:
            for part in ids.split(chunk or ids.shape[1], dim=1):
                model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return Prompted(cache, sum(cache.layer_nbytes()), len(cache.lazy_layers))


@contextmanager
def shown_to_profilers() -> Iterator[None]:
    """While it lasts, loops of machine code are seen by profilers, which know torch's operations only."""
    places = ((few_rows, "attend_in_parts", "loops::attention"), (dots, "multiply_in_parts", "loops::products"))
    loops = [getattr(module, name) for module, name, _ in places]

    def shown(loop: Callable[..., Any], label: str) -> Callable[..., Any]:
        def under_its_name(*given: Any) -> Any:
            with record_function(label):
                return loop(*given)

        return under_its_name

    try:
        for (module, name, label), loop in zip(places, loops, strict=True):
            setattr(module, name, shown(loop, label))
        yield
    finally:
        for (module, name, _), loop in zip(places, loops, strict=True):
            setattr(module, name, loop)


def part_of(operation: str) -> str:
    """Which part of a step an operation belongs to."""
    name = operation.rpartition("::")[2].strip("_")
    return _ATTENTION if "attention" in name else _OPERATIONS.get(name, _REST)


def recast(prefill: Prefill, lm: LoadedModel) -> Prefill:
    """The prefill with its keys and values in the precision of `lm`, to decode with: a step's time does not depend on
    how its prompt was computed, and a CPU without bfloat16 products takes minutes for one."""
    dtype = lm.model.dtype
    records = tuple(replace(r, key=r.key.to(dtype), value=r.value.to(dtype)) for r in prefill.records)
    return replace(prefill, lm=lm, records=records)


def second_token(prefill: Prefill, plan: ConversionPlan | None) -> None:
    """What a page waits for after a change of the plan: a branch, its first token and its second."""
    lane = Lane(Branch(prefill, plan), Sampler())
    lane.step()
    lane.step()


if __name__ == "__main__":
    warnings.simplefilter("ignore", ShortPromptWarning)  # that no layer is lazy then, the row says
    disable_progress_bar()
    serve(OurWorker(*sys.argv[1:]))
