"""The prompt as its own question: the model reads passages of it a second time, and layers are judged by that reading.

Who copies a text must fetch it from where it stood, whatever will be asked later. So a second reading shows which
layers fetch from far away, without a question and without an answer. The passages are those of the prompt that are
repeated least, since what stands nearer too need not be fetched from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lighttransfer_core.attention import AttentionCall, LayerRecord
from lighttransfer_core.decoding import Branch
from lighttransfer_core.laziness.metric import LayerView, Measured, Metric, MetricInfo, layer_views, register
from lighttransfer_core.laziness.reach_effect import FLOOR, Witnesses, weighed, witnesses
from lighttransfer_core.prefill import Prefill
from lighttransfer_core.types import Float64Array, Window

PASSAGES: Final = 2
PASSAGE_TOKENS: Final = 32
GRAM: Final = 3
"""How many tokens in a row are counted when repetitions are looked for."""
TAIL: Final = 0.1
"""The share of the queries, those that change most, over which changes are averaged."""


@dataclass(frozen=True)
class Echo(Metric):
    """Reach and effect, over the prompt's last queries and over the tokens of a second reading. 1: nothing is lost."""

    info = MetricInfo(
        name="echo",
        title="Echo",
        formula=f"(m + {FLOOR}) / (m + {FLOOR} + r) as in reach and effect, over two sets of queries: the prompt’s "
        f"last, and those of the {PASSAGES} least repeated passages of up to {PASSAGE_TOKENS} tokens outside the "
        "window, which the model reads again after the prompt; m is the least mass of both sets, r the larger of their "
        "means over the tenth of queries that change most",
        meaning="How little a layer fetches from far away, now and when the model repeats what it has read: that shows "
        "which layers retrieve, whatever the question is, and before there is one.",
        source="this project; chosen on prompts apart from those that it is reported on",
        cost="a forward pass of the passages’ tokens, and the window’s keys and values per layer for them and for the "
        "last queries; in half precision all of the prompt’s",
        kind="probe",
    )

    def measure(self, prefill: Prefill, window: Window, last: int) -> Measured:
        views = layer_views(prefill)
        own = [witnesses(view, window, last, self.info.name) for view in views]
        sets = [own]
        if token_ids := passages_again(prefill, window):
            sets.append(read_behind(prefill, views, window, token_ids, self.info.name))
        layers = list(zip(*sets, strict=True))
        return Measured(
            torch.stack([worst([(one.mass.amin(dim=0), one.change) for one in layer]) for layer in layers]),
            torch.stack([worst([(one.mass, one.head_change) for one in layer]) for layer in layers]),
            torch.stack([weighed(one.mass.amin(dim=0), one.change) for one in own]),
        )


def passages_again(prefill: Prefill, window: Window) -> list[int]:
    """The tokens of the prompt's passages that are read a second time; none where the window holds everything."""
    passages = echo_passages(prefill.input_ids[0], window, prefill.spec.room(prefill.num_tokens))
    return [token for start, stop in passages for token in prefill.input_ids[0, start:stop].tolist()]


def read_behind(
    prefill: Prefill, views: list[LayerView], window: Window, token_ids: list[int], metric: str
) -> list[Witnesses]:
    """What tokens that the model reads after the prompt say of each layer.

    Of more tokens than half of the window, the last ones are asked: those before them would have left it themselves.
    """
    found: list[Witnesses] = []
    asked = min(len(token_ids), max(1, window.recent // 2))

    def heard(call: AttentionCall, output: Tensor, lse: Tensor) -> None:
        view = views[call.layer]
        view = replace(view, record=_reading(view.record, call, lse, window, asked), output=output[0, :, -asked:])
        found.append(witnesses(view, window, asked, metric))

    branch = Branch(prefill)
    branch.cache.on_decode = heard
    branch.forward(torch.tensor([token_ids]), last=1)
    return found


def worst(sets: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The score of sets of queries, each with its mass and change `[..., queries]`: the least mass of any, and of the
    changes the mean of the largest tenth, in the set where that is larger."""
    mass = torch.stack([mass.amin(dim=-1) for mass, _ in sets]).amin(dim=0)
    tenths = [change.topk(max(1, round(change.shape[-1] * TAIL))).values.mean(dim=-1) for _, change in sets]
    return weighed(mass, torch.stack(tenths).amax(dim=0))


def echo_passages(input_ids: Tensor, window: Window, room: int) -> list[tuple[int, int]]:
    """Where the passages stand in a prompt `[T]`: of what the window leaves out, the ones of least repetition, and of
    equal ones the earliest. None where nothing is left out, or no position is left.

    They are short beside the window, so that it holds what a reader of them has just read, and fit the `room` behind
    the prompt.
    """
    start, stop = window.sink, input_ids.shape[0] - window.recent
    count = min(PASSAGES, stop - start, room)
    if count < 1:
        return []
    size = max(1, min(PASSAGE_TOKENS, (stop - start) // count, window.recent // (2 * count), room // count))
    rarity = _rarity(input_ids.numpy(), size)[start : stop - size + 1]
    found: list[int] = []
    for first in start + np.argsort(-rarity, kind="stable"):
        if all(abs(first - other) >= size for other in found):
            found.append(int(first))
        if len(found) == count:
            break
    return sorted((first, first + size) for first in found)


def _rarity(input_ids: npt.NDArray[np.int64], size: int) -> Float64Array:
    """Of every passage of so many tokens, how many of its runs of tokens stand nowhere else; what stands n times counts
    as an nth."""
    run = min(GRAM, size)
    runs = np.lib.stride_tricks.sliding_window_view(input_ids, run)
    _, which, counts = np.unique(runs, axis=0, return_inverse=True, return_counts=True)
    total = np.concatenate([[0.0], np.cumsum(1.0 / counts[which.ravel()])])
    first = np.arange(len(input_ids) - size + 1)
    rarity: Float64Array = np.round(total[first + size - run + 1] - total[first], 6)
    return rarity


def _reading(record: LayerRecord, call: AttentionCall, lse: Tensor, window: Window, asked: int) -> LayerRecord:
    """The prompt's layer with the tokens that were read behind it, and the queries of the last so many of those alone.

    What the window leaves out is left out here: nobody looks at it, since outputs and log-sum-exp are at hand. A layer
    that slides by itself counts positions, so it keeps everything.
    """
    sink = window.sink
    start = max(sink, record.num_tokens + call.key.shape[2] - window.recent) if record.window is None else sink

    def joined(prompt: Tensor, read: Tensor) -> Tensor:
        return torch.cat([prompt[:, :sink], prompt[:, start:], read[0]], dim=1)

    norm = call.residual_norm
    return replace(
        record,
        query=call.query[0, :, -asked:],
        key=joined(record.key, call.key),
        value=joined(record.value, call.value),
        lse=lse[0, :, -asked:],
        residual_norm=None if norm is None else norm[0, -asked:],
        residual_cosine=None,
        output=None,
    )


register(Echo())
