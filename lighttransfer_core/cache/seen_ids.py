"""The token ids that a cache has seen, so that a follow-up can be told from another text."""

from __future__ import annotations

import torch
from torch import Tensor


class SeenIds:
    """Ids `[B, T]` of every forward pass, one after the other; unknown once a pass was given embeddings."""

    def __init__(self) -> None:
        self._passes: list[Tensor] | None = []

    def add(self, input_ids: Tensor | None) -> None:
        """Those of one more pass; None: it had none."""
        if input_ids is None:
            self._passes = None
        elif self._passes is not None:
            self._passes.append(input_ids)

    def begin(self, input_ids: Tensor, seen_tokens: int) -> bool:
        """Whether `[B, T]` ids begin with all of these, which are `seen_tokens` a row, and go on."""
        if self._passes is None:
            return False
        if not self._passes:
            return seen_tokens == 0
        seen = torch.cat(self._passes, dim=1)
        return (
            input_ids.shape[0] == seen.shape[0]
            and input_ids.shape[1] > seen.shape[1]
            and torch.equal(input_ids[:, : seen.shape[1]].to(seen.device), seen)
        )

    def select_rows(self, rows: Tensor) -> None:
        """Keeps the rows of the batch in `rows`, in that order."""
        if self._passes:
            ids = torch.cat(self._passes, dim=1)
            self._passes = [ids.index_select(0, rows.to(ids.device))]

    def copy(self) -> SeenIds:
        copy = SeenIds()
        copy._passes = None if self._passes is None else list(self._passes)
        return copy
