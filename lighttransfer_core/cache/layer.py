"""What every layer of a hybrid cache can do, and the growing buffer that they store tokens in."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from lighttransfer_core.attention import AttentionCall
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.errors import UnsupportedRequestError


class Segment:
    """Keys `[B, Hk, capacity, D]` and values `[B, Hk, capacity, Dv]`, of which the first `length` tokens are filled."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        self._keys = keys
        self._values = values
        self.length = length

    @classmethod
    def zeros_like(cls, key: Tensor, value: Tensor, capacity: int) -> Segment:
        """Room for `capacity` tokens like the given ones.

        Zeros, not whatever memory holds: a slot that is masked still enters the kernel, and 0 times nan is nan.
        """
        shape = (*key.shape[:2], capacity)
        return cls(key.new_zeros(*shape, key.shape[3]), value.new_zeros(*shape, value.shape[3]), 0)

    @property
    def key(self) -> Tensor:
        return self._keys.narrow(2, 0, self.length)

    @property
    def value(self) -> Tensor:
        return self._values.narrow(2, 0, self.length)

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """The whole buffers, for writing into slots."""
        return self._keys, self._values

    @property
    def capacity(self) -> int:
        return self._keys.shape[2]

    @property
    def token_nbytes(self) -> int:
        """Bytes of one token, all rows of the batch together."""
        batch, heads, _, key_dim = self._keys.shape
        return batch * heads * (key_dim + self._values.shape[3]) * self._keys.element_size()

    @property
    def kept_nbytes(self) -> int:
        return self.length * self.token_nbytes

    @property
    def allocated_nbytes(self) -> int:
        return self._keys.untyped_storage().nbytes() + self._values.untyped_storage().nbytes()

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` tokens in all, moving what is there into buffers of its own."""
        if capacity > self.capacity:
            grown = Segment.zeros_like(self._keys, self._values, capacity)
            grown.append(self.key, self.value)
            self._keys, self._values = grown.buffers

    def append(self, key: Tensor, value: Tensor) -> None:
        new = key.shape[2]
        self._keys.narrow(2, self.length, new).copy_(key.detach())
        self._values.narrow(2, self.length, new).copy_(value.detach())
        self.length += new

    def copy(self) -> Segment:
        return Segment(self._keys.clone(), self._values.clone(), self.length)

    def select_rows(self, index: Tensor) -> None:
        """Reorders or repeats the rows of the batch, in buffers of its own."""
        index = index.to(self._keys.device)
        self._keys, self._values = self._keys.index_select(0, index), self._values.index_select(0, index)


class HybridLayer(CacheLayerMixin):
    """A layer of a `HybridCache`: transformers' verbs, plus `attend` and the counting of bytes.

    `update` only stores; attention over what is stored is `attend`'s, since sinks and window are not one range.
    """

    is_compileable = False
    is_croppable = False
    is_sliding = False
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    @abstractmethod
    def segments(self) -> list[Segment]: ...

    @property
    @abstractmethod
    def own_nbytes(self) -> int:
        """Bytes of the tokens kept that no other branch of the same prefill shares."""

    @abstractmethod
    def attend(self, call: AttentionCall, padding: Padding | None) -> tuple[Tensor, Tensor]:
        """Output `[B, H, Tq, D]` and log-sum-exp `[B, H, Tq]` of the queries over everything that they may see."""

    @abstractmethod
    def fork(self) -> Self:
        """A copy that goes its own way; what is read-only stays shared."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keeps the rows of the batch in `beam_idx`, in that order."""
        for segment in self.segments:
            segment.select_rows(beam_idx)

    @property
    def kept_nbytes(self) -> int:
        """Bytes of the tokens kept."""
        return sum(segment.kept_nbytes for segment in self.segments)

    @property
    def allocated_nbytes(self) -> int:
        """Bytes reserved, the room to grow included."""
        return sum(segment.allocated_nbytes for segment in self.segments)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Logical sizes: tokens seen, not stored, so that masks shared with other layers stay right."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Layers make their buffers in `update`, when they know how much arrives."""

    def reset(self) -> None:
        raise UnsupportedRequestError("a hybrid cache belongs to one prompt: make a new one instead of resetting it.")

    def crop(self, tokens_to_remove: int) -> None:
        raise UnsupportedRequestError(
            "a hybrid cache cannot take tokens back, since streaming layers have dropped what they would need."
        )
