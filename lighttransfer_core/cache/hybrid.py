"""The cache that a hybrid model decodes with: full layers beside streaming layers.

It is handed to every layer through the forward call, computes that layer's attention over what it stores, and cuts the
layers that its policy names as soon as the prompt has passed through them, so that prompt and first token are the
unmodified model's. It knows no model and no metric.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer, LinearAttentionCacheLayerMixin

from lighttransfer_core.attention import AttentionCall, LayerAttention, RequestState, rotary
from lighttransfer_core.cache.full import FullLayer
from lighttransfer_core.cache.layer import HybridLayer
from lighttransfer_core.cache.no_gradient import without_gradient
from lighttransfer_core.cache.padding import Padding, continues
from lighttransfer_core.cache.policy import PromptObserver
from lighttransfer_core.cache.seen_ids import SeenIds
from lighttransfer_core.cache.streaming import StreamingLayer
from lighttransfer_core.errors import CacheMisuseError, InvalidPlanError, InvalidPromptError, UnsupportedRequestError
from lighttransfer_core.types import Window

NativeLayer = CacheLayerMixin | LinearAttentionCacheLayerMixin | DummyLayer


class HybridCache(Cache, RequestState):
    """A key-value cache whose layers are full or streaming.

    Parameters
    ----------
    kinds
        What the model says of each layer; layers that slide by themselves stream over their native window.
    window
        What a cut layer keeps.
    policy
        Sees the prompt pass and says which layers to cut.
    prompt_tokens
        Length of the prompt where it arrives in several forward passes; None: it arrives in one.
    layers
        Layers of a prompt that was run before; None: the prompt is still to come.
    turning_point
        The model's, where somebody asks before its first pass whether the cache is one to go on with.
    """

    def __init__(
        self,
        kinds: list[LayerAttention],
        window: Window,
        policy: PromptObserver,
        prompt_tokens: int | None = None,
        layers: Sequence[NativeLayer] | None = None,
        turning_point: int | None = None,
    ) -> None:
        made = [FullLayer(prompt_tokens=prompt_tokens) for _ in kinds] if layers is None else layers
        super().__init__(layers=list(made))
        self.kinds = kinds
        self.window = window
        self.prompt_tokens = prompt_tokens
        self.peak_nbytes = 0
        self.padding: Padding | None = None
        self.on_decode: Callable[[AttentionCall, Tensor, Tensor], None] | None = None
        """Sees each layer's attention after the prompt, with its output `[B, H, Tq, D]` and log-sum-exp `[B, H, Tq]`;
        not taken over by a fork."""
        self._policy = policy
        self._model: weakref.ref[nn.Module] | None = None
        self._turn = turning_point
        self._in_forward = False
        self._residuals: dict[int, Tensor] = {}
        self._trained: list[Tensor] = []
        self._stored = self._finished = self._broken = False
        self._new_ids: Tensor | None = None
        self._last_layer = max(index for index, kind in enumerate(kinds) if kind.is_attention)
        self._seen_ids = SeenIds()
        self._kept = [layer.kept_nbytes if isinstance(layer, HybridLayer) else 0 for layer in self.layers]
        self._count_peak()

    def __bool__(self) -> bool:
        """False with LongRoPE: transformers drops a cache that is true where such a model would not know how to go on
        with it, and computes the whole text anew with another one. `begin_forward` refuses that instead."""
        return self._turn is None

    @property
    def lazy_layers(self) -> tuple[int, ...]:
        """The layers that were converted, native sliding layers not among them."""
        return tuple(
            index
            for index, (layer, kind) in enumerate(zip(self.layers, self.kinds, strict=True))
            if isinstance(layer, StreamingLayer) and kind.kind == "full"
        )

    @property
    def batch_size(self) -> int:
        """Rows of the batch, those of a search with beams included; 0 before the prompt."""
        segments = next(iter(self._hybrid_layers())).segments
        return segments[0].key.shape[0] if segments else 0

    @property
    def seen_tokens(self) -> int:
        """Tokens seen, padding included."""
        return self.get_seq_length()

    def layer_nbytes(self) -> tuple[int, ...]:
        """Bytes of the tokens kept, per layer; 0 for a layer without attention."""
        return self._per_layer("kept_nbytes")

    def layer_allocated_nbytes(self) -> tuple[int, ...]:
        """Bytes of the storages behind them, per layer: the room to grow included."""
        return self._per_layer("allocated_nbytes")

    def layer_own_nbytes(self) -> tuple[int, ...]:
        """Bytes of the tokens kept that no other branch of the same prefill shares, per layer."""
        return self._per_layer("own_nbytes")

    def begin_forward(self, model: nn.Module, given: Mapping[str, Any]) -> int:
        self.check_whole()
        self._residuals.clear()
        self._trained.clear()
        self._check_model(model)
        input_ids, attention_mask = given.get("input_ids"), given.get("attention_mask")
        if input_ids is not None:
            self._check_length(input_ids.shape[1], attention_mask)
        if attention_mask is not None:
            self._read_padding(attention_mask)
        elif self.padding is not None:
            raise UnsupportedRequestError("the prompt was padded: pass the attention mask of all tokens again.")
        entering = given.get("inputs_embeds") if input_ids is None else input_ids
        reach = self._reach(0 if entering is None else entering.shape[1], given.get("position_ids"))
        self._new_ids = input_ids
        self._in_forward, self._stored, self._finished = True, False, False
        return reach

    def check_whole(self) -> None:
        """Refuses a cache whose layers hold different tokens."""
        if self._in_forward:
            self.end_forward()  # an interrupt ends a pass without a word
        if self._broken:
            raise CacheMisuseError(
                "a forward pass through this cache broke off, so its layers hold different tokens: make a new cache."
            )

    def end_forward(self) -> None:
        if not self._in_forward:
            return
        self._in_forward = False
        self._broken = self._stored and not self._finished
        if self._finished:
            self._seen_ids.add(self._new_ids)
        self._new_ids = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self._in_forward:
            raise CacheMisuseError(
                "this hybrid cache was passed to a model outside of hybrid(...), or to a part of a model: call the "
                "whole model, inside `with hybrid(model, plan) as cache:`."
            )
        layer = self.layers[layer_idx]
        assert isinstance(layer, HybridLayer)
        self._stored = True
        self._trained = [key_states, value_states]
        key, value = layer.update(key_states, value_states)
        self._recount(layer_idx)
        return key, value

    def see_residual(self, layer: int, hidden: Tensor) -> None:
        held = self.layers[layer]
        if self.on_decode is not None or (isinstance(held, FullLayer) and not held.is_sealed):
            self._residuals[layer] = hidden.detach()

    def see_output(self, layer: int, output: Tensor) -> None:
        hidden = self._residuals.pop(layer, None)
        if hidden is not None:
            self._policy.observe_output(layer, hidden, output.detach())

    def attend(self, call: AttentionCall) -> Tensor:
        if not call.mask.is_plain:
            raise UnsupportedRequestError(
                f"layer {call.layer} attends by a rule other than causal attention, a sliding window and left padding; "
                "a hybrid cache would not reproduce it."
            )
        layer = self.layers[call.layer]
        assert isinstance(layer, HybridLayer)
        out, lse = call.finish(layer.attend(call, self.padding))
        if isinstance(layer, FullLayer) and not layer.is_sealed:
            self._observe_prompt(_with_norm(call, self._residuals.get(call.layer)), layer, out, lse)
        elif self.on_decode is not None:
            self.on_decode(_with_norm(call, self._residuals.pop(call.layer, None)), out, lse)
        self._recount(call.layer)
        self._finished = call.layer == self._last_layer
        out = without_gradient(out, (call.query, *self._trained))
        self._trained.clear()
        return out

    def starts_with(self, input_ids: Tensor) -> bool:
        """Whether `[B, T]` token ids begin with those that this cache has seen."""
        return self._seen_ids.begin(input_ids, self.seen_tokens)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps the rows of the batch in `beam_idx`, in that order."""
        if self.padding is not None:
            self.padding = self.padding.select_rows(beam_idx)
        for layer in self.layers:
            layer.reorder_cache(cast(LongTensor, beam_idx))
        self._seen_ids.select_rows(beam_idx)

    def expect_prompt(self, prompt_tokens: int) -> None:
        """States the prompt's length before it arrives, so that chunks of it are not taken for follow-ups."""
        self.prompt_tokens = prompt_tokens
        for layer in self.layers:
            if isinstance(layer, FullLayer):
                layer.expect_prompt(prompt_tokens)

    def fork(self) -> HybridCache:
        """A branch from here: the prompt stays shared, everything else is copied.

        Raises
        ------
        CacheMisuseError
            The prompt has not ended yet.
        """
        if any(isinstance(layer, FullLayer) and not layer.is_sealed for layer in self.layers):
            raise CacheMisuseError("a cache can be forked once its prompt has ended, not before.")
        layers = [layer.fork() for layer in self._hybrid_layers()]
        copy = HybridCache(self.kinds, self.window, self._policy, self.prompt_tokens, layers)
        copy.padding = self.padding
        copy._model, copy._turn = self._model, self._turn
        copy._seen_ids = self._seen_ids.copy()
        return copy

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(self.batch_size).repeat_interleave(repeats))

    def activate_past_recording(self) -> None:
        raise UnsupportedRequestError(
            "assisted decoding takes tokens back, and streaming layers have dropped what that would need: generate "
            "without assistant_model and prompt_lookup_num_tokens."
        )

    def _per_layer(self, name: str) -> tuple[int, ...]:
        return tuple(getattr(layer, name) if isinstance(layer, HybridLayer) else 0 for layer in self.layers)

    def _hybrid_layers(self) -> list[HybridLayer]:
        return [layer for layer in self.layers if isinstance(layer, HybridLayer)]

    def _check_model(self, model: nn.Module) -> None:
        known = self._model() if self._model is not None else model
        if known is not model:
            raise CacheMisuseError(
                "this cache holds keys and values of another model: take the one hybrid(...) yields for this model."
            )
        if self._model is None:
            self._turn = rotary.turning_point(cast(PreTrainedModel, model).config)
        self._model = weakref.ref(model)

    def _read_padding(self, attention_mask: Tensor) -> None:
        seen, reached = self.seen_tokens, attention_mask.shape[-1]
        # Until the prompt has ended, a row may be nothing but padding yet.
        in_prompt = self.prompt_tokens is not None and reached < self.prompt_tokens
        padding = Padding.read(attention_mask, may_be_empty=in_prompt)
        if padding == self.padding:
            return  # the one at hand has made its masks already
        if seen and not continues(self.padding, padding, seen, attention_mask.shape[0]):
            raise UnsupportedRequestError(
                "the padding changed after the prompt: a follow-up must continue every row without new padding."
            )
        self.padding = padding

    def _check_length(self, new: int, attention_mask: Tensor | None) -> None:
        seen, expected = self.seen_tokens, self.prompt_tokens
        if expected is not None and seen < expected < seen + new:
            raise _across_the_end(expected, seen + new)
        if attention_mask is not None and attention_mask.dim() == 2 and attention_mask.shape[1] != seen + new:
            raise UnsupportedRequestError(
                f"the attention mask covers {attention_mask.shape[1]} tokens, and with this pass the cache has seen "
                f"{seen + new}: pass the mask of all tokens."
            )

    def _reach(self, new: int, positions: Tensor | None) -> int:
        """How long the text is after this pass of so many tokens, a prompt in chunks with what is to come of it; where
        the model has no turning point, no more than the prompt's length.

        Raises
        ------
        UnsupportedRequestError
            It grows past the point beyond which the model turns all positions otherwise.
        """
        # without positions of its own the model counts padding too
        uncounted = self.padding.least if self.padding is not None and positions is not None else 0
        seen, prompt = self.seen_tokens - uncounted, (self.prompt_tokens or uncounted) - uncounted
        if self._turn is None:
            return prompt
        ends = seen + new if positions is None else int(positions.max()) + 1
        before, after = max(prompt, seen), max(prompt, ends)
        if self.seen_tokens and before <= self._turn < after:
            raise UnsupportedRequestError(
                f"the text grows from {before} to {after} tokens, and beyond {self._turn} this model turns all of them "
                "by other frequencies (LongRoPE), which the keys that are kept would not fit: give the whole text as "
                "one prompt, or end it before."
            )
        return after

    def _observe_prompt(self, call: AttentionCall, layer: FullLayer, output: Tensor, lse: Tensor) -> None:
        assert layer.prompt is not None
        self._policy.observe(call, layer.prompt, output, lse, self.padding)
        seen, expected = layer.prompt.length, self.prompt_tokens
        if expected is not None and seen > expected:
            raise _across_the_end(expected, seen)
        if expected is None or seen == expected:
            self._end_prompt(call.layer, layer)

    def _end_prompt(self, index: int, layer: FullLayer) -> None:
        layer.seal()
        if self.kinds[index].window is not None:
            self._stream(index, Window(sink=0, recent=self.kinds[index].window or 1))
        for lazy in self._policy.cut(index):
            self._stream(lazy, self.window)

    def _stream(self, index: int, window: Window) -> None:
        layer = self.layers[index]
        if not isinstance(layer, FullLayer) or layer.prompt is None:
            raise InvalidPlanError(f"layer {index} cannot be converted to streaming attention.")
        self.layers[index] = StreamingLayer(window, layer.prompt, self.padding)
        self._recount(index)

    def _recount(self, index: int) -> None:
        layer = self.layers[index]
        assert isinstance(layer, HybridLayer)
        self._kept[index] = layer.kept_nbytes
        self._count_peak()

    def _count_peak(self) -> None:
        self.peak_nbytes = max(self.peak_nbytes, sum(self._kept))


def _with_norm(call: AttentionCall, hidden: Tensor | None) -> AttentionCall:
    if hidden is None:
        return call
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    return replace(call, residual_norm=torch.linalg.vector_norm(hidden, dim=-1, dtype=dtype))


def _across_the_end(expected: int, reached: int) -> InvalidPromptError:
    return InvalidPromptError(
        f"the prompt was said to have {expected} tokens, but a chunk ends at {reached}: pass its exact length as "
        "prompt_tokens, and what follows in forward passes of its own."
    )
