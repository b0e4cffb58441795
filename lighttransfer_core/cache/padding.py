"""Left padding of a batch: where each row's real tokens begin, and the masks that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lighttransfer_core.attention.masks import AttentionMask
from lighttransfer_core.errors import UnsupportedRequestError


@dataclass(frozen=True)
class Padding:
    """The left padding of each row of a batch.

    Parameters
    ----------
    starts
        Index of each row's first real token.
    """

    starts: tuple[int, ...]
    _prompt_masks: dict[tuple[int, int], AttentionMask] = field(default_factory=dict, init=False, compare=False)

    @property
    def most(self) -> int:
        return max(self.starts)

    @property
    def least(self) -> int:
        return min(self.starts)

    @classmethod
    def read(cls, attention_mask: Tensor, may_be_empty: bool = False) -> Padding | None:
        """The padding that a 2-D attention mask describes; None where every token is real.

        Raises
        ------
        UnsupportedRequestError
            Padding on the right or in the middle, an empty row unless `may_be_empty`, or a mask that is not 2-D.
        """
        if attention_mask.dim() != 2:
            raise UnsupportedRequestError(
                f"a mask of shape {tuple(attention_mask.shape)} cannot be continued by a hybrid cache: pass the 2-D "
                "mask of padding, or none."
            )
        real = attention_mask.bool().cpu()
        if bool(real.all()):
            return None
        starts = (~real).long().sum(dim=1)
        is_left = torch.equal(real, torch.arange(real.shape[1]) >= starts[:, None])
        if not is_left or (int(starts.max()) == real.shape[1] and not may_be_empty):
            raise UnsupportedRequestError(
                "only left padding can be cut exactly: this mask has padding after or between real tokens, or an empty "
                'row. Use tokenizer.padding_side = "left".'
            )
        return cls(tuple(int(start) for start in starts))

    def starts_on(self, device: torch.device) -> Tensor:
        return torch.tensor(self.starts, device=device)

    def prompt_mask(self, queries: int, prompt_length: int) -> AttentionMask:
        """Which prompt tokens later queries see: all but the padding."""
        key = (queries, prompt_length)
        if key not in self._prompt_masks:

            def allowed(device: torch.device) -> Tensor:
                real = torch.arange(prompt_length, device=device) >= self.starts_on(device)[:, None]
                return real[:, None, None, :]

            self._prompt_masks[key] = AttentionMask(queries, prompt_length, allowed=allowed)
        return self._prompt_masks[key]

    def select_rows(self, index: Tensor) -> Padding:
        return Padding(tuple(self.starts[row] for row in index.tolist()))


def continues(before: Padding | None, now: Padding | None, seen: int, rows: int) -> bool:
    """Whether only rows that were nothing but padding so far have got more of it."""
    starts, later = (padding.starts if padding is not None else (0,) * rows for padding in (before, now))
    return len(starts) == len(later) and all(
        start == new or start == seen <= new for start, new in zip(starts, later, strict=True)
    )
