"""What the model reads behind a prompt, and what that says of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall, LayerRecord
from lighttransfer_core.decoding import Branch
from lighttransfer_core.laziness.metric import layer_views
from lighttransfer_core.laziness.reach_effect import Witnesses, witnesses
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import Window


@dataclass(frozen=True, eq=False)
class _Read:
    """One layer, over tokens that were read: queries and outputs `[H, n, D]`, keys and values `[Hk, n, D]`, log-sum-exp
    `[H, n]`, and the residual stream's lengths `[n]` where they could be seen."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    lse: Tensor
    residual_norm: Tensor | None

    @classmethod
    def of(cls, pieces: Sequence[_Read]) -> _Read:
        """Of several pieces, one after the other."""

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(piece, name) for piece in pieces], dim=1)

        norms = [piece.residual_norm for piece in pieces if piece.residual_norm is not None]
        parts = {name: joined(name) for name in ("query", "key", "value", "output", "lse")}
        return cls(**parts, residual_norm=torch.cat(norms) if norms else None)


class Reading:
    """Tokens that the full model reads behind a prompt, a piece at a time: `token_ids` so far."""

    def __init__(self, prefill: Prefill) -> None:
        self._prefill = prefill
        self._pieces: list[list[_Read]] = [[] for _ in prefill.records]
        self._branch = Branch(prefill)
        # the pieces alone: a circle through the branch would keep the prefill until garbage is collected
        self._branch.cache.on_decode = partial(_hear, self._pieces)
        self.token_ids: list[int] = []

    def read(self, token_ids: list[int]) -> Tensor:
        """The logits `[V]` behind the last of these."""
        self.token_ids += token_ids
        return self._branch.forward(torch.tensor([token_ids]), last=1)[-1]

    def witnesses(self, window: Window, metric: str) -> list[Witnesses]:
        """Of each layer, asked of the tokens that were read.

        Of more tokens than half of the window, the last ones are asked: those before them would have left it
        themselves.
        """
        asked = min(len(self.token_ids), max(1, window.recent // 2))
        found: list[Witnesses] = []
        for view, pieces in zip(layer_views(self._prefill), self._pieces, strict=True):
            read = _Read.of(pieces)
            record = _with_read(view.record, read, window, asked)
            found.append(witnesses(replace(view, record=record, output=read.output[:, -asked:]), window, asked, metric))
        return found


def _hear(pieces: list[list[_Read]], call: AttentionCall, output: Tensor, lse: Tensor) -> None:
    norm = call.residual_norm
    piece = _Read(call.query[0], call.key[0], call.value[0], output[0], lse[0], None if norm is None else norm[0])
    pieces[call.layer].append(piece)


def _with_read(record: LayerRecord, read: _Read, window: Window, asked: int) -> LayerRecord:
    """The prompt's layer with the tokens that were read behind it, and the queries of the last so many of those alone.

    What the window leaves out is left out here: nobody looks at it, since outputs and log-sum-exp are at hand. A layer
    that slides by itself counts positions, so it keeps everything.
    """
    sink = window.sink
    start = max(sink, record.num_tokens + read.key.shape[1] - window.recent) if record.window is None else sink

    def behind(prompt: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat([prompt[:, :sink], prompt[:, start:], tokens], dim=1)

    return replace(
        record,
        query=read.query[:, -asked:],
        key=behind(record.key, read.key),
        value=behind(record.value, read.value),
        lse=read.lse[:, -asked:],
        residual_norm=None if read.residual_norm is None else read.residual_norm[-asked:],
        residual_cosine=None,
        output=None,
    )
