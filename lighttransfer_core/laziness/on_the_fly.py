"""The paper's own way: score each layer as the prompt passes through it, and cut the laziest so far.

A heap holds the layers that are still full; as soon as there is one more than may stay, the laziest leaves and its
cache is cut. So at most one full layer more than the target is ever alive. Source: arXiv 2410.13846, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall, LayerRecord
from lighttransfer_core.cache import Padding, Segment
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.heap import LazyQueue
from lighttransfer_core.keep import keeps_outputs
from lighttransfer_core.layer_sets import layers_kept_full
from lighttransfer_core.laziness.metric import LayerMetric, LayerView, get_metric, list_metrics
from lighttransfer_core.laziness.ranking import check_question, warn_short_prompt
from lighttransfer_core.laziness.reach_effect import ReachEffect
from lighttransfer_core.types import Window


@dataclass(frozen=True)
class OnTheFly:
    """Choose the lazy layers while the prompt runs, one set for the whole batch.

    Parameters
    ----------
    keep_full
        Share of the convertible layers that stays full, halves rounded up.
    window, last, metric
        As in `score_layers`, but for the metric: while the prompt runs nothing can be read again, so it is the best of
        those that look at one layer's attention. In a batch the scores of the rows are averaged, padding excluded.
    """

    keep_full: float = 0.5
    window: Window = field(default_factory=Window)
    last: int = 32
    metric: str = ReachEffect.info.name

    def __post_init__(self) -> None:
        layers_kept_full(self.keep_full, 1)
        check_question(self.window, self.last)
        chosen = get_metric(self.metric)
        if not isinstance(chosen, LayerMetric) or chosen.query_rows(self.last) is None:
            raise InvalidInputError(
                f"{self.metric} needs more than one layer's last queries, so it cannot run on the fly: choose one of "
                f"{', '.join(name for name in list_metrics('prompt') if isinstance(get_metric(name), LayerMetric))}."
            )


class HeapPolicy:
    """The heap of one prompt.

    Parameters
    ----------
    projection
        The output projection of a layer, for metrics that ask for it.
    """

    def __init__(self, choice: OnTheFly, convertible: tuple[int, ...], projection: Callable[[int], Tensor]) -> None:
        metric = get_metric(choice.metric)
        assert isinstance(metric, LayerMetric)
        self.scores: dict[int, float] = {}
        self._choice = choice
        self._metric = metric
        self._projection = projection
        self._rows = self._metric.query_rows(choice.last) or choice.last
        self._convertible = set(convertible)
        self._queue = LazyQueue(layers_kept_full(choice.keep_full, len(convertible)))
        self._waiting: dict[int, _Latest] = {}
        self._warned = False

    def observe(
        self, call: AttentionCall, prompt: Segment, output: Tensor, lse: Tensor, padding: Padding | None
    ) -> None:
        if call.layer in self._convertible:
            before = self._waiting.get(call.layer)
            self._waiting[call.layer] = _Latest.after(before, call, prompt, output, lse, padding, self._rows)

    def observe_output(self, layer: int, hidden: Tensor, output: Tensor) -> None:
        """A layer is judged, and perhaps cut, before its output is there."""

    def cut(self, layer: int) -> Iterable[int]:
        if layer not in self._convertible:
            return []
        latest = self._waiting.pop(layer)
        if latest.longest_row <= self._choice.window.size:
            if not self._warned:
                warn_short_prompt(latest.longest_row, self._choice.window)
                self._warned = True
            return []
        score = self._score(latest)
        self.scores[layer] = score
        self._queue.push(layer, score)
        popped = self._queue.pop_excess()
        return [] if popped is None else [popped]

    def _score(self, latest: _Latest) -> float:
        values = []
        for record in latest.rows():
            view = LayerView(record, lambda: self._projection(latest.layer), record.output)
            last = min(self._choice.last, record.num_tokens)
            values.append(self._metric.of_layer(view, self._choice.window, last).value)
        return sum(values) / len(values)


@dataclass(frozen=True)
class _Latest:
    """The last queries of one layer's prompt so far, with their log-sum-exp, and where its keys and values lie."""

    layer: int
    scale: float
    softcap: float | None
    learned_sink: Tensor | None
    query: Tensor
    lse: Tensor
    residual_norm: Tensor | None
    output: Tensor | None
    prompt: Segment
    padding: Padding | None

    @classmethod
    def after(
        cls,
        before: _Latest | None,
        call: AttentionCall,
        prompt: Segment,
        output: Tensor,
        lse: Tensor,
        padding: Padding | None,
        rows: int,
    ) -> _Latest:
        query = call.query[:, :, -rows:]
        lse = lse[:, :, -rows:]
        norm = None if call.residual_norm is None else call.residual_norm[:, -rows:]
        found = output[:, :, -rows:] if keeps_outputs(output.element_size()) else None
        if before is not None and query.shape[2] < rows:
            query = torch.cat([before.query, query], dim=2)[:, :, -rows:]
            lse = torch.cat([before.lse, lse], dim=2)[:, :, -rows:]
            if norm is not None and before.residual_norm is not None:
                norm = torch.cat([before.residual_norm, norm], dim=1)[:, -rows:]
            if found is not None and before.output is not None:
                found = torch.cat([before.output, found], dim=2)[:, :, -rows:]
        # Copies, since a view would pin the queries of the whole chunk.
        norm, found = (None if one is None else one.clone() for one in (norm, found))
        facts = (call.layer, call.scale, call.softcap, call.learned_sink)
        return cls(*facts, query.clone(), lse.clone(), norm, found, prompt, padding)

    @property
    def starts(self) -> tuple[int, ...]:
        return self.padding.starts if self.padding is not None else (0,) * self.query.shape[0]

    @property
    def longest_row(self) -> int:
        return self.prompt.length - min(self.starts)

    def rows(self) -> Iterable[LayerRecord]:
        """One record per row of the batch, without its padding."""
        for row, start in enumerate(self.starts):
            real = min(self.query.shape[2], self.prompt.length - start)
            yield LayerRecord(
                layer=self.layer,
                query=self.query[row, :, -real:],
                key=self.prompt.key[row, :, start:],
                value=self.prompt.value[row, :, start:],
                lse=self.lse[row, :, -real:],
                scale=self.scale,
                softcap=self.softcap,
                learned_sink=self.learned_sink,
                residual_norm=None if self.residual_norm is None else self.residual_norm[row, -real:],
                output=None if self.output is None else self.output[row, :, -real:],
            )
