"""A branch whose decode step is captured once as a CUDA graph and then replayed, without Python between its kernels.

An option: where a graph cannot be captured the branch decodes step by step as ever, and a warning says why. What is
captured is held against the ordinary branch in the tests; the capture itself has not been run on a GPU yet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from lighttransfer_core.attention import attention_layers, input_device, one_pass
from lighttransfer_core.cache import HybridCache, Segment, StaticPolicy
from lighttransfer_core.cache.fixed import FixedFullLayer, FixedStreamingLayer, Position
from lighttransfer_core.decoding import Branch, Lane, Sampler, check_new_tokens, decode_lane
from lighttransfer_core.errors import CompiledStepWarning, InvalidPromptError
from lighttransfer_core.events import DecodeEvent
from lighttransfer_core.models.fit import check_plan
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import ConversionPlan, Window

_WARM_UPS = 3
_NO_PLAN = ConversionPlan()

Step = Callable[[Tensor], Tensor]
"""Token id `[1, 1]` to logits `[1, V]`."""


def decode_compiled(
    prefill: Prefill,
    plan: ConversionPlan | None = None,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> Iterator[DecodeEvent]:
    """`decode` with the step as one graph: the same events.

    Warns
    -----
    CompiledStepWarning
        The step could not be captured, so it runs as ever.
    """
    check_new_tokens(max_new_tokens)
    lane = Lane(compiled_branch(prefill, plan, max_new_tokens), Sampler(temperature, seed))
    return decode_lane(lane, max_new_tokens, stop_at_eos)


def compiled_branch(prefill: Prefill, plan: ConversionPlan | None, max_new_tokens: int) -> Branch:
    """A branch with a captured step where this device has CUDA graphs, else an ordinary one.

    Warns
    -----
    CompiledStepWarning
        The step could not be captured.
    """
    device = input_device(prefill.lm.model)
    if device.type != "cuda":
        _warn(f"CUDA graphs need a CUDA device, and the model is on {device}")
        return Branch(prefill, plan)
    branch = CompiledBranch(prefill, plan, max_new_tokens)
    try:
        branch.capture()
    except RuntimeError as error:
        _warn(f"the step could not be captured ({error})")
        return Branch(prefill, plan)
    return branch


class CompiledBranch(Branch):
    """A continuation of a prefill by at most `max_new_tokens` tokens, fed one at a time.

    Until `capture` is called its step runs kernel by kernel.
    """

    def __init__(self, prefill: Prefill, plan: ConversionPlan | None, max_new_tokens: int) -> None:
        plan = plan or _NO_PLAN
        check_plan(plan, prefill.spec)
        kinds = attention_layers(prefill.lm.model.config)
        self._room = max_new_tokens
        self._position = Position(prefill.num_tokens, input_device(prefill.lm.model))
        layers: list[CacheLayerMixin] = []
        for record, kind in zip(prefill.records, kinds, strict=True):
            prompt = Segment(record.key.unsqueeze(0), record.value.unsqueeze(0), record.num_tokens)
            lazy = plan.window if record.layer in plan.lazy_layers else None
            window = Window(sink=0, recent=kind.window) if kind.window is not None else lazy
            if window is None:
                layers.append(FixedFullLayer(self._position, prompt, max_new_tokens))
            else:
                layers.append(FixedStreamingLayer(self._position, window, prompt))
        self.prefill = prefill
        self.cache = HybridCache(kinds, plan.window, StaticPolicy(plan), layers=layers)
        self._fed, self._recorder = [], None
        self._step: Step = self._run

    @torch.no_grad()
    def forward(self, token_ids: Tensor, last: int | None = None) -> Tensor:
        """Appends one token `[1, 1]` and returns the logits after it, `[1, V]` float32, whatever `last` is.

        Raises
        ------
        InvalidPromptError
            More tokens than there is room for, or several at once.
        """
        used = self._position.seen - self.prefill.num_tokens
        if token_ids.shape[1] != 1 or used >= self._room:
            raise InvalidPromptError(
                f"a captured step takes one token at a time, {self._room} in all, and {used} were fed: use an "
                "ordinary branch to feed more."
            )
        logits = self._step(token_ids.to(self._position.tensor.device))
        self._position.advance()
        return logits

    def capture(self) -> None:
        """Runs the step a few times, which leaves nothing behind that is read later, and captures it."""
        fed = torch.zeros(1, 1, dtype=torch.long, device=self._position.tensor.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(_WARM_UPS):
                self._run(fed)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.no_grad():
            logits = self._run(fed)

        def replay(token_ids: Tensor) -> Tensor:
            fed.copy_(token_ids)
            graph.replay()
            return logits.clone()

        self._step = replay

    def _run(self, token_ids: Tensor) -> Tensor:
        model = self.prefill.lm.model
        with one_pass(model):
            output = model(
                input_ids=token_ids,
                position_ids=self._position.tensor[None],
                past_key_values=self.cache,
                use_cache=True,
            )
        logits: Tensor = output.logits[0].float()
        return logits


def _warn(why: str) -> None:
    warnings.warn(f"{why}: decoding step by step instead.", CompiledStepWarning, stacklevel=4)
