"""What a prompt's attention is asked for while it passes: queries, log-sum-exp and the residual stream's lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall, LayerRecord
from lighttransfer_core.cache import FullLayer, HybridCache, Padding, Segment
from lighttransfer_core.keep import Keep


@dataclass(frozen=True)
class _KeptRows:
    """One layer's queries `[H, R, D]`, log-sum-exp `[H, R]` and residual norms `[R]`, and how its scores are made."""

    query: Tensor
    lse: Tensor
    residual_norm: Tensor | None
    scale: float
    softcap: float | None
    learned_sink: Tensor | None


class PromptRecorder:
    """Keeps queries and log-sum-exp as the prompt passes; the first `shared` rows are taken from earlier records."""

    def __init__(self, keep: Keep, num_tokens: int, earlier: Sequence[LayerRecord] = (), shared: int = 0) -> None:
        self._keep = keep
        self._num_tokens = num_tokens
        self._earlier = earlier if shared else ()
        self._shared = shared
        self._kept: dict[int, _KeptRows] = {}
        self._cosines: dict[int, list[Tensor]] = {}
        self._outputs: dict[int, list[Tensor]] = {}

    def observe(
        self, call: AttentionCall, prompt: Segment, output: Tensor, lse: Tensor, padding: Padding | None
    ) -> None:
        if call.layer not in self._kept:
            _, heads, _, dim = call.query.shape
            rows = self._keep.rows_of(self._num_tokens, call.layer)
            place = torch.device("cpu") if self._keep.host else call.query.device
            query = call.query.new_empty(heads, rows, dim, device=place)
            row_lse = lse.new_empty(heads, rows, device=place)
            norm = None if call.residual_norm is None else call.residual_norm.new_empty(rows, device=place)
            self._kept[call.layer] = _KeptRows(query, row_lse, norm, call.scale, call.softcap, call.learned_sink)
            if self._earlier:
                self._take_over(self._earlier[call.layer], self._kept[call.layer])
        kept = self._kept[call.layer]
        first = self._num_tokens - kept.query.shape[1]
        start = prompt.length - call.query.shape[2]
        skip = max(first - start, 0)
        if skip < call.query.shape[2]:
            into = slice(start + skip - first, prompt.length - first)
            kept.query[:, into] = call.query[0, :, skip:]
            kept.lse[:, into] = lse[0, :, skip:]
            if kept.residual_norm is not None and call.residual_norm is not None:
                kept.residual_norm[into] = call.residual_norm[0, skip:]
        self._keep_outputs(call, prompt.length, output)

    def _keep_outputs(self, call: AttentionCall, done: int, output: Tensor) -> None:
        """Those of the chunk's rows that are among the last ones."""
        rows = self._keep.outputs_of(self._num_tokens, call.layer, output.element_size())
        wanted = min(done - (self._num_tokens - rows), output.shape[2])
        if rows and wanted > 0:
            place = torch.device("cpu") if self._keep.host else output.device
            self._outputs.setdefault(call.layer, []).append(output[0, :, -wanted:].to(place, copy=True))

    def _take_over(self, record: LayerRecord, kept: _KeptRows) -> None:
        """The wanted rows among those that are not computed again."""
        first = self._num_tokens - kept.query.shape[1]
        if first >= self._shared:
            return
        there = slice(first - record.first_row, self._shared - record.first_row)
        here = slice(0, self._shared - first)
        kept.query[:, here] = record.query[:, there]
        kept.lse[:, here] = record.lse[:, there]
        if kept.residual_norm is not None and record.residual_norm is not None:
            kept.residual_norm[here] = record.residual_norm[there]

    def observe_output(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        if layer not in self._cosines:
            before = self._earlier[layer].residual_cosine if self._earlier else None
            self._cosines[layer] = [] if before is None else [before[: self._shared]]
        place = torch.device("cpu") if self._keep.host else hidden.device
        self._cosines[layer].append(cosine_after(hidden[0], output[0]).to(place))

    def cut(self, layer: int) -> Iterable[int]:
        return []

    def record(self, layer: int, cache: HybridCache, window: int | None) -> LayerRecord:
        kept = self._kept[layer]
        full = cache.layers[layer]
        assert isinstance(full, FullLayer)
        assert full.prompt is not None
        key, value = (tensor[0] for tensor in full.prompt.buffers)
        made = LayerRecord(
            layer,
            kept.query,
            key,
            value,
            kept.lse,
            kept.scale,
            kept.softcap,
            kept.learned_sink,
            window,
            residual_norm=kept.residual_norm,
            residual_cosine=torch.cat(self._cosines[layer]) if layer in self._cosines else None,
        )
        return replace(made, output=self._output(made))

    def _output(self, record: LayerRecord) -> Tensor | None:
        """The last rows' outputs; computed anew where some of these rows were taken over."""
        itemsize = record.value.element_size()
        rows = self._keep.outputs_of(self._num_tokens, record.layer, itemsize)
        if not rows:
            return None
        seen = torch.cat(self._outputs[record.layer], dim=1)
        if seen.shape[1] == rows:
            return seen
        out, _ = record.outputs((self._num_tokens - rows, self._num_tokens), [(0, self._num_tokens)])
        return out.to(seen)


def cosine_after(hidden: Tensor, added: Tensor) -> Tensor:
    """Cosine `[T]` between vectors `[T, hidden]` and the same with something added, in float32."""
    hidden = hidden.float()
    return torch.nn.functional.cosine_similarity(hidden, hidden + added.to(hidden.device), dim=-1)
