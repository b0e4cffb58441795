"""A layer that keeps every token: a fixed block for the prompt, and a tail of its own that grows.

The prompt block may belong to a prefill that several branches share; it is only ever read. Attention reads both
parts where they lie, so nothing is concatenated.
"""

from __future__ import annotations

from torch import Tensor

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.attention.kernels import attend, attend_all
from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.cache.layer import HybridLayer, Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.errors import UnsupportedRequestError

_FIRST_SLACK = 64


class FullLayer(HybridLayer):
    """Full attention.

    Parameters
    ----------
    prompt
        The keys and values of a prompt that was run before, shared and read-only; None: the prompt is still to come.
    prompt_tokens
        Length of the prompt to come where it arrives in chunks, so that its block is made once.
    """

    def __init__(self, prompt: Segment | None = None, prompt_tokens: int | None = None) -> None:
        super().__init__()
        self.prompt = prompt
        self.tail: Segment | None = None
        self.is_sealed = prompt is not None
        self.is_shared = prompt is not None
        self._prompt_tokens = prompt_tokens
        self.is_initialized = prompt is not None

    @classmethod
    def begun(cls, key: Tensor, value: Tensor, prompt_tokens: int) -> FullLayer:
        """A layer whose prompt begins with these keys and values `[1, Hk, n, D]`, copied; the rest is still to come."""
        layer = cls(prompt_tokens=prompt_tokens)
        layer.prompt = Segment.zeros_like(key, value, max(prompt_tokens, key.shape[2]))
        layer.prompt.append(key, value)
        layer.is_initialized = True
        return layer

    @property
    def segments(self) -> list[Segment]:
        return [segment for segment in (self.prompt, self.tail) if segment is not None]

    @property
    def own_nbytes(self) -> int:
        return self.kept_nbytes - (self.prompt.kept_nbytes if self.is_shared and self.prompt is not None else 0)

    def get_seq_length(self) -> int:
        return sum(segment.length for segment in self.segments)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores the new tokens and returns them: attention over the rest is `attend`'s."""
        self.is_initialized = True
        new = key_states.shape[2]
        if not self.is_sealed:
            if self.prompt is None:
                self.prompt = Segment.zeros_like(key_states, value_states, max(self._prompt_tokens or 0, new))
            self.prompt.reserve(self.prompt.length + new)
            self.prompt.append(key_states, value_states)
        else:
            if self.tail is None:
                self.tail = Segment.zeros_like(key_states, value_states, 0)
            self._grow_tail(self.tail, new)
            self.tail.append(key_states, value_states)
        return key_states, value_states

    def seal(self) -> None:
        """The prompt has ended: what follows goes to the tail."""
        self.is_sealed = True

    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        assert self.prompt is not None
        if not self.is_sealed:
            prompt = self.prompt
            return attend(call.query, prompt.key, prompt.value, scale=call.scale, mask=call.mask, softcap=call.softcap)
        if call.mask.window is not None:
            raise UnsupportedRequestError(
                f"layer {call.layer} slides over {call.mask.window} tokens and the text is now longer than that, which "
                "is past the model's positions: use a shorter prompt or fewer new tokens."
            )
        assert self.tail is not None
        queries = call.query.shape[2]
        past = None if padding is None else padding.prompt_mask(queries, self.prompt.length)
        stretches = [
            (self.prompt.key, self.prompt.value, past),
            (self.tail.key, self.tail.value, self._tail_mask(queries)),
        ]
        return attend_all(call.query, stretches, scale=call.scale, softcap=call.softcap)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.is_shared = False

    def expect_prompt(self, prompt_tokens: int) -> None:
        """States the length of the prompt to come."""
        self._prompt_tokens = prompt_tokens

    def fork(self) -> FullLayer:
        assert self.prompt is not None
        copy = FullLayer(Segment(*self.prompt.buffers, self.prompt.length))
        copy.tail = None if self.tail is None else self.tail.copy()
        return copy

    def _tail_mask(self, queries: int) -> AttentionMask | None:
        assert self.tail is not None
        return None if queries == 1 else AttentionMask(queries, self.tail.length)

    def _grow_tail(self, tail: Segment, new: int) -> None:
        """Geometric growth whose slack stays under a fifth of all that the layer keeps."""
        needed = tail.length + new
        if needed > tail.capacity:
            total = needed + (self.prompt.length if self.prompt is not None else 0)
            tail.reserve(needed + min(_FIRST_SLACK + needed // 2, total // 5))
