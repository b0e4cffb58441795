"""From a prefill and a plan to a stream of tokens.

A branch shares the prefill's prompt in its full layers and copies sinks and window in its streaming ones, so a new
plan costs milliseconds. The engine is a generator of events and knows no page and no service.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import CacheLayerMixin

from lighttransfer_core.attention import LayerRecord, attention_layers, input_device, one_pass
from lighttransfer_core.cache import FullLayer, HybridCache, Segment, StaticPolicy, StreamingLayer
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.events import DecodeEvent
from lighttransfer_core.models.fit import check_plan, check_room
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.token_ids import likeliest
from lighttransfer_core.transcript import Continuation, DecodeRecorder
from lighttransfer_core.types import ConversionPlan, Window, is_integer

_NO_PLAN = ConversionPlan()
_INCOMPLETE = "�"
_TEXT_CONTEXT = 8


class Branch:
    """One continuation of a prefill under one plan.

    Parameters
    ----------
    plan
        Which layers stream; None: none of them.
    record
        Keep the queries, keys and log-sum-exp of what is decoded, for a `Transcript`.

    Raises
    ------
    InvalidPlanError
        The plan does not fit the prefill's model.
    """

    def __init__(self, prefill: Prefill, plan: ConversionPlan | None = None, *, record: bool = False) -> None:
        plan = _NO_PLAN if plan is None else plan
        if not isinstance(plan, ConversionPlan):
            raise InvalidInputError(
                f"{type(plan).__name__} is not a plan for a branch: give a ConversionPlan, or None."
            )
        check_plan(plan, prefill.spec)
        kinds = attention_layers(prefill.lm.model.config)
        layers: list[CacheLayerMixin] = []
        for prompt, kind in zip(prefill.records, kinds, strict=True):
            lazy = plan.window if prompt.layer in plan.lazy_layers else None
            native = Window(sink=0, recent=kind.window) if kind.window is not None else None
            layers.append(_branch_layer(prompt, native or lazy))
        self.prefill = prefill
        self.cache = HybridCache(kinds, plan.window, StaticPolicy(plan), layers=layers)
        self._fed: list[Tensor] = []
        self._recorder = DecodeRecorder(plan, len(kinds)) if record else None
        if self._recorder is not None:
            self.cache.on_decode = self._recorder.observe

    @torch.no_grad()
    def forward(self, token_ids: Tensor, last: int | None = None) -> Tensor:
        """Appends `[1, m]` tokens and returns the logits after the last so many, or after each: `[m, V]` float32 on the
        host's side of the device.

        Raises
        ------
        InvalidPromptError
            The text would outgrow the model's positions.
        """
        model = self.prefill.lm.model
        check_room(self.prefill.spec, self.cache.seen_tokens, token_ids.shape[1])
        with one_pass(model):
            output = model(
                input_ids=token_ids.to(input_device(model)),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=last or 0,
            )
        if self._recorder is not None:
            self._fed.append(token_ids[0].cpu())
        logits: Tensor = output.logits[0].float()
        return logits

    def continuation(self) -> Continuation | None:
        """What was decoded so far, for a `Transcript`; None where nothing was fed back yet, or it was not recorded."""
        return self._recorder.continuation(torch.cat(self._fed)) if self._recorder is not None and self._fed else None

    @property
    def own_nbytes(self) -> int:
        """Bytes that no other branch of the prefill shares: tails, windows, and what is recorded."""
        recorded = self._recorder.nbytes if self._recorder is not None else 0
        return sum(self.cache.layer_own_nbytes()) + recorded

    def fork(self, *, record: bool = False) -> Branch:
        """A second continuation from here; it records nothing, or goes on with what was recorded."""
        twin = object.__new__(Branch)
        twin.prefill, twin.cache = self.prefill, self.cache.fork()
        twin._fed, twin._recorder = [], None
        if record and self._recorder is not None:
            twin._fed, twin._recorder = list(self._fed), self._recorder.fork()
            twin.cache.on_decode = twin._recorder.observe
        return twin


@dataclass(frozen=True)
class Choice:
    """A token chosen from logits."""

    token_id: int
    logprob: float


class Sampler:
    """Chooses tokens: the likeliest at temperature 0, else by a seeded draw."""

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        if not 0.0 <= temperature < math.inf:
            raise InvalidInputError(f"temperature={temperature!r} is out of range: give 0 for greedy, or more.")
        if not is_integer(seed) or not 0 <= seed < 2**63:
            raise InvalidInputError(f"seed={seed!r} is out of range: give an integer from 0 to 2^63 - 1.")
        self._temperature = temperature
        self._random = torch.Generator().manual_seed(seed)

    def choose(self, logits: Tensor, take: int | None = None) -> Choice:
        """From the logits `[V]` of one position, or the token to `take`; `logprob` is the model's own, before the
        temperature."""
        logprobs = torch.log_softmax(logits, dim=-1)
        if take is not None:
            token = take
        elif self._temperature == 0.0:
            token = int(likeliest(logprobs))
        else:
            # The largest is taken off first, since a tiny temperature would make it infinite.
            weights = torch.softmax((logits - logits.max()).cpu().double() / self._temperature, dim=-1)
            token = int(torch.multinomial(weights, 1, generator=self._random))
        return Choice(token, float(logprobs[token]))

    def fork(self) -> Sampler:
        """One that would draw the same from here on."""
        twin = Sampler(self._temperature)
        twin._random.set_state(self._random.get_state())
        return twin


class TextStream:
    """Turns token ids into text as they come, holding back bytes that do not make a character yet."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._written = 0

    def push(self, token_id: int) -> str:
        if self._tokenizer is None:
            return ""
        self._ids.append(token_id)
        before = self._decode(self._ids[: self._written])
        after = self._decode(self._ids)
        if after.endswith(_INCOMPLETE):
            return ""
        self._ids, self._written = self._ids[-_TEXT_CONTEXT:], min(len(self._ids), _TEXT_CONTEXT)
        return after[len(before) :]

    def fork(self) -> TextStream:
        twin = TextStream(self._tokenizer)
        twin._ids, twin._written = list(self._ids), self._written
        return twin

    def _decode(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class Lane:
    """A branch that decodes its own text, one event a step.

    Attributes
    ----------
    pending
        The tokens that the next step feeds: the one chosen last, or a further turn.
    ended
        Whether the last token was one that ends a text.
    """

    def __init__(self, branch: Branch, sampler: Sampler) -> None:
        self.branch = branch
        self.ended = False
        self.pending: list[int] = []
        self._sampler = sampler
        self._text = TextStream(branch.prefill.lm.tokenizer)
        self._stop_ids = stop_token_ids(branch.prefill)
        self._step = 0

    def step(self, take: int | None = None) -> tuple[DecodeEvent, Tensor]:
        """The next token's event, and the logits `[V]` that it was chosen from.

        Parameters
        ----------
        take
            Go on with this token in place of one of the lane's own choice.
        """
        began = time.perf_counter()
        branch = self.branch
        logits = branch.forward(torch.tensor([self.pending]), last=1)[0] if self.pending else branch.prefill.logits
        choice = self._sampler.choose(logits, take)
        _synchronize(logits.device)
        latency_s = time.perf_counter() - began
        self.pending = [choice.token_id]
        self.ended = choice.token_id in self._stop_ids
        text, cache = self._text.push(choice.token_id), self.branch.cache
        event = DecodeEvent(
            self._step, choice.token_id, text, choice.logprob, latency_s, cache.layer_nbytes(), cache.seen_tokens
        )
        self._step += 1
        return event, logits

    def ask(self, token_ids: list[int]) -> None:
        """A further turn: the tokens that lead from this answer to the next one. Steps count from 0 again.

        A token that ended the text was never fed: the turn begins with it, where the model's template wants it.
        """
        self.pending = [*([] if self.ended else self.pending), *token_ids]
        self.ended, self._step = False, 0
        self._text = TextStream(self.branch.prefill.lm.tokenizer)

    def fork(self) -> Lane:
        """The same lane once more, to go another way from here."""
        twin = copy.copy(self)
        twin.branch, twin._sampler = self.branch.fork(record=True), self._sampler.fork()
        twin._text, twin.pending = self._text.fork(), list(self.pending)
        return twin


def decode(
    prefill: Prefill,
    plan: ConversionPlan | None = None,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> Iterator[DecodeEvent]:
    """Decodes after a prefill under a plan, one event per token.

    The first token comes from the prefill's own logits, so it is the same for every plan.

    Raises
    ------
    InvalidPlanError, InvalidInputError
    InvalidPromptError
        The text would outgrow the model's positions.
    """
    check_new_tokens(max_new_tokens)
    return decode_lane(Lane(Branch(prefill, plan), Sampler(temperature, seed)), max_new_tokens, stop_at_eos)


@torch.no_grad()
def decode_lane(lane: Lane, max_new_tokens: int, stop_at_eos: bool) -> Iterator[DecodeEvent]:
    """A lane's own text to its end, one event per token."""
    for _ in range(max_new_tokens):
        event, _ = lane.step()
        yield event
        if stop_at_eos and lane.ended:
            return


def check_new_tokens(max_new_tokens: int) -> None:
    if not is_integer(max_new_tokens) or max_new_tokens < 1:
        raise InvalidInputError(f"max_new_tokens={max_new_tokens!r} is not a number of tokens: give at least 1.")


def stop_token_ids(prefill: Prefill) -> frozenset[int]:
    """The ids that end a text, as the model's generation configuration says."""
    config = prefill.lm.model.generation_config
    eos = config.eos_token_id if config is not None else None
    if eos is None:
        return frozenset()
    return frozenset(eos if isinstance(eos, list) else [eos])


def _branch_layer(record: LayerRecord, window: Window | None) -> CacheLayerMixin:
    prompt = Segment(record.key.unsqueeze(0), record.value.unsqueeze(0), record.num_tokens)
    return FullLayer(prompt) if window is None else StreamingLayer(window, prompt, None)


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
