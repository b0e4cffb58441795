"""All heads of a model at once, from a stated sample of rows: a thumbnail of each, and what each head is like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lighttransfer_core.attention import LayerRecord
from lighttransfer_core.maps.codes import Codes, encode
from lighttransfer_core.transcript import Attended
from lighttransfer_core.types import Float64Array, Window

CHARACTERS = ("sink", "recent", "previous", "induction", "entropy", "distance")
"""Shares of attention on: the sinks, the recent tokens, the token before, tokens that followed an earlier occurrence of
the query's token; then the entropy in bits and the mean distance in tokens. Means over the sampled rows."""

_MOST_BYTES = 512 * 1024
_LARGEST_SIDE = 48
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class HeadOverview:
    """Every head in small.

    Attributes
    ----------
    rows
        The sampled rows, one per row of a thumbnail.
    thumbnails
        `[L, H, side, side]` codes; a column is the maximum over its range of keys.
    characters
        By name, `[L, H]`.
    """

    rows: tuple[int, ...]
    thumbnails: Codes
    characters: dict[str, Float64Array]


def head_overview(prefill: Attended, window: Window) -> HeadOverview:
    """Samples rows at even distances among those whose queries were kept."""
    spec = prefill.spec
    side = min(_LARGEST_SIDE, isqrt(_MOST_BYTES // (spec.num_layers * spec.num_heads)), prefill.num_tokens)
    rows = _sampled_rows(prefill, side)
    sample = _Sample(prefill, rows, window)
    layers = [sample.layer(record) for record in prefill.records]
    thumbnails = np.stack([encode(np.where(sample.hidden_bins, np.nan, image)) for image, _ in layers])
    characters = {name: np.stack([values[name] for _, values in layers]) for name in CHARACTERS}
    return HeadOverview(tuple(rows.tolist()), thumbnails, characters)


def _sampled_rows(prefill: Attended, side: int) -> Tensor:
    """The last row of each of `side` equal ranges."""
    first = max(record.first_row for record in prefill.records)
    kept = prefill.num_tokens - first
    return first + torch.arange(1, side + 1) * kept // side - 1


class _Sample:
    """The sampled rows of one prefill, and what all its layers share."""

    def __init__(self, prefill: Attended, rows: Tensor, window: Window) -> None:
        self._rows = rows
        self._edges = np.arange(len(rows) + 1) * prefill.num_tokens // len(rows)
        self.hidden_bins: npt.NDArray[np.bool_] = self._edges[None, :-1] > rows.numpy()[:, None]
        keys, queries = torch.arange(prefill.num_tokens), rows[:, None]
        ids = prefill.input_ids[0]
        followed = torch.zeros(len(rows), prefill.num_tokens, dtype=torch.bool)
        followed[:, 1:] = (ids[None, :-1] == ids[rows, None]) & (keys[1:] <= queries)
        self._repeats = followed.any(dim=1)
        is_sink = (keys < window.sink).expand(len(rows), -1)
        self._masks = {
            "sink": is_sink,
            "recent": (keys > queries - window.recent) & ~is_sink,
            "previous": keys == queries - 1,
            "induction": followed,
        }
        self._distances = (queries - keys).clamp(min=0).float()

    def layer(self, record: LayerRecord) -> tuple[npt.NDArray[np.float32], dict[str, Float64Array]]:
        """Thumbnails `[H, side, side]` of probabilities, and each character `[H]`."""
        images = np.zeros((record.num_heads, len(self._rows), len(self._rows)), dtype=np.float32)
        sums = {name: torch.zeros(record.num_heads, len(self._rows)) for name in CHARACTERS}
        for part in self._parts(record):
            weights = record.log_weights_at(self._rows[part]).cpu().exp_()
            images[:, part] = np.maximum.reduceat(weights.numpy(), self._edges[:-1], axis=2)
            for name, mask in self._masks.items():
                sums[name][:, part] = (weights * mask[part]).sum(dim=-1)
            sums["distance"][:, part] = (weights * self._distances[part]).sum(dim=-1)
            sums["entropy"][:, part] = torch.special.entr(weights).sum(dim=-1) / np.log(2.0)
        return images, {name: self._mean(name, values) for name, values in sums.items()}

    def _mean(self, name: str, values: Tensor) -> Float64Array:
        """Over the rows; for induction over those whose token had occurred before, and 0 where there is none."""
        rows = self._repeats if name == "induction" else torch.ones_like(self._repeats)
        mean: Float64Array = (values[:, rows].double().sum(dim=1) / max(int(rows.sum()), 1)).numpy()
        return mean

    def _parts(self, record: LayerRecord) -> Iterator[slice]:
        height = max(_SCORES_AT_ONCE // (record.num_heads * record.num_tokens), 1)
        for start in range(0, len(self._rows), height):
            yield slice(start, start + height)
