"""A prompt with what was decoded after it, as one record of attention: maps do not end where the prompt does."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall, LayerRecord
from lighttransfer_core.errors import PrefillMismatchError
from lighttransfer_core.keep import Keep
from lighttransfer_core.models import LoadedModel
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import ConversionPlan, ModelSpec

_JOINED_LAYERS = 2


@dataclass(frozen=True)
class DecodedRows:
    """What one layer computed for the decoded tokens that were fed back: queries and keys `[H or Hk, n, D]` after the
    rotary embedding, log-sum-exp `[H, n]` over what the layer still held."""

    query: Tensor
    key: Tensor
    lse: Tensor

    @property
    def nbytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in (self.query, self.key, self.lse))


@dataclass(frozen=True, eq=False)
class Continuation:
    """What a branch decoded under a plan, without the prompt that it continues.

    Attributes
    ----------
    token_ids
        `[n]`; the tokens that were fed back, so one fewer than were chosen.
    rows
        One per layer.
    """

    plan: ConversionPlan
    token_ids: Tensor
    rows: tuple[DecodedRows, ...]

    @property
    def nbytes(self) -> int:
        return self.token_ids.untyped_storage().nbytes() + sum(rows.nbytes for rows in self.rows)


class DecodeRecorder:
    """Collects a branch's rows, call by call."""

    def __init__(self, plan: ConversionPlan, num_layers: int) -> None:
        self._plan = plan
        self._parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(num_layers)]

    def observe(self, call: AttentionCall, _output: Tensor, lse: Tensor) -> None:
        """One layer's attention over what a branch holds: `call` has the new tokens alone."""
        # Copies, since a view would pin the projection that queries, keys and values share.
        self._parts[call.layer].append((call.query[0].clone(), call.key[0].clone(), lse[0].clone()))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for parts in self._parts for part in parts for tensor in part)

    def fork(self) -> DecodeRecorder:
        """One that goes on with what was collected so far."""
        twin = DecodeRecorder(self._plan, len(self._parts))
        twin._parts = [list(parts) for parts in self._parts]
        return twin

    def continuation(self, token_ids: Tensor) -> Continuation:
        """All so far; `token_ids` are the tokens that were fed back."""
        rows = tuple(
            DecodedRows(*(torch.cat(some, dim=1) for some in zip(*parts, strict=True))) for parts in self._parts
        )
        return Continuation(self._plan, token_ids, rows)


class Transcript:
    """A prefill and a continuation of it, read like a longer prefill.

    In layers that the continuation's plan streams, decoded rows see sinks and window only; what was evicted is hidden.
    """

    def __init__(self, prefill: Prefill, continuation: Continuation) -> None:
        if len(prefill.records) != len(continuation.rows):
            raise PrefillMismatchError(
                f"the continuation has {len(continuation.rows)} layers and the prefill {len(prefill.records)}: take "
                "the prefill that was continued."
            )
        self.prefill = prefill
        self.continuation = continuation
        self.records: Sequence[LayerRecord] = _JoinedRecords(prefill, continuation)
        self.input_ids = torch.cat([prefill.input_ids, continuation.token_ids[None]], dim=1)

    @property
    def lm(self) -> LoadedModel:
        return self.prefill.lm

    @property
    def spec(self) -> ModelSpec:
        return self.prefill.spec

    @property
    def keep(self) -> Keep:
        return self.prefill.keep

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    @property
    def prompt_tokens(self) -> int:
        """Those of the prompt alone."""
        return self.prefill.num_tokens


Attended = Prefill | Transcript
"""What a map can be drawn of."""


class _JoinedRecords(Sequence[LayerRecord]):
    """Joins a layer's prompt and its decoded rows when asked, and keeps the last few: all would double the prefill."""

    def __init__(self, prefill: Prefill, continuation: Continuation) -> None:
        self._prefill = prefill
        self._continuation = continuation
        self._joined: OrderedDict[int, LayerRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prefill.records)

    def __iter__(self) -> Iterator[LayerRecord]:
        return (self[layer] for layer in range(len(self)))

    def __getitem__(self, layer: int) -> LayerRecord:  # type: ignore[override]
        found = self._joined.get(layer)
        if found is None:
            found = self._joined[layer] = self._join(layer)
            while len(self._joined) > _JOINED_LAYERS:
                self._joined.popitem(last=False)
        return found

    def _join(self, layer: int) -> LayerRecord:
        record, rows, plan = self._prefill.records[layer], self._continuation.rows[layer], self._continuation.plan
        return replace(
            record,
            query=torch.cat([record.query, rows.query.to(record.query.device)], dim=1),
            key=torch.cat([record.key, rows.key], dim=1),
            lse=torch.cat([record.lse, rows.lse.to(record.lse.device)], dim=1),
            prompt_tokens=self._prefill.num_tokens,
            streaming=plan.window if layer in plan.lazy_layers else None,
        )
