from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError, PrefillMismatchError
from lighttransfer_core.keep import Keep
from tests.conftest import make_tiny, tokens
from tests.reference import eager_attentions


def brute_pooled(weights: np.ndarray, bins: int, reduce: str) -> np.ndarray:
    """Cell by cell, from the definition."""
    total = len(weights)
    edges = [i * total // bins for i in range(bins + 1)]
    out = np.full((bins, bins), np.nan, dtype=np.float64)
    for row in range(bins):
        for column in range(bins):
            cells = [
                weights[q, k]
                for q in range(edges[row], edges[row + 1])
                for k in range(edges[column], edges[column + 1])
                if k <= q
            ]
            if cells:
                out[row, column] = max(cells) if reduce == "max" else sum(cells) / len(cells)
    return out


def test_every_rectangle_equals_eager_attention(tiny: PreTrainedModel) -> None:
    ids = tokens(50)
    prefill = lt.run_prefill(tiny, ids, chunk_tokens=16)
    reference = eager_attentions(tiny, ids)
    draw = np.random.default_rng(1)
    for _ in range(40):
        layer, head = draw.integers(4), draw.integers(6)
        (r0, r1), (c0, c1) = (sorted(draw.choice(51, 2, replace=False)) for _ in range(2))
        tile = prefill.attention(int(layer), int(head), rows=(int(r0), int(r1)), cols=(int(c0), int(c1)))
        assert tile.dtype == np.float32
        np.testing.assert_allclose(tile, reference[layer][0, head, r0:r1, c0:c1].numpy(), atol=1e-5)


@pytest.mark.parametrize("columns", [(0, 4), (0, 50), (30, 50), (45, 50), (10, 42)])
def test_attention_over_a_range_of_keys_alone(tiny: PreTrainedModel, columns: tuple[int, int]) -> None:
    ids, rows, keys = tokens(50), (40, 50), slice(*columns)
    for record in lt.run_prefill(tiny, ids).records:
        weights = record.log_weights(rows, columns).double().exp()
        mass = weights.sum(dim=-1)
        value = record.value[:, keys].double().repeat_interleave(record.num_heads // record.value.shape[0], dim=0)
        out, lse = record.attend(rows, columns)
        torch.testing.assert_close(torch.exp(lse.double() - record.lse_of(rows)), mass, atol=1e-5, rtol=1e-5)
        expected = weights @ value / mass.clamp_min(1e-300).unsqueeze(-1)
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["gemma3"])
def test_rows_sum_to_one_and_the_future_is_zero(tiny: PreTrainedModel) -> None:
    whole = lt.run_prefill(tiny, tokens(50)).attention(2, 3)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-5)
    assert not np.triu(whole, 1).any()


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize(
    ("length", "bins"), [(48, 16), (50, 16), (50, 7), (50, 50), (23, 40), (1, 3), (300, 1), (300, 2), (300, 400)]
)
def test_pooled_equals_brute_force(llama: PreTrainedModel, length: int, bins: int, reduce: str) -> None:
    prefill = lt.run_prefill(llama, tokens(length))
    pooled = prefill.pooled(1, 2, bins=bins, reduce=reduce)
    assert pooled.shape == (bins, bins)
    expected = brute_pooled(prefill.attention(1, 2), bins, reduce)
    np.testing.assert_array_equal(np.isnan(pooled), np.isnan(expected))
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


def test_pooled_over_several_strips(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(make_tiny("llama"), tokens(512))
    for reduce in ("max", "mean"):
        expected = brute_pooled(prefill.attention(0, 0), 30, reduce)
        np.testing.assert_allclose(prefill.pooled(0, 0, bins=30, reduce=reduce), expected, atol=1e-6)


def test_only_the_kept_rows_can_be_looked_at(llama: PreTrainedModel) -> None:
    ids = tokens(40)
    few = lt.run_prefill(llama, ids, keep=Keep(query_rows=5), chunk_tokens=19)
    whole = lt.run_prefill(llama, ids)
    np.testing.assert_allclose(few.attention(1, 1, rows=(35, 40)), whole.attention(1, 1, rows=(35, 40)), atol=1e-6)
    with pytest.raises(PrefillMismatchError, match="rows 35 to 39"):
        few.attention(1, 1, rows=(34, 40))
    assert few.nbytes < whole.nbytes


@pytest.mark.parametrize(
    "arguments",
    [
        {"layer": 4, "head": 0},
        {"layer": -1, "head": 0},
        {"layer": 0, "head": 6},
        {"layer": 0, "head": 0, "rows": (3, 3)},
        {"layer": 0, "head": 0, "cols": (0, 21)},
        {"layer": 0, "head": 0, "rows": (-1, 3)},
    ],
)
def test_places_that_do_not_exist_are_refused(llama: PreTrainedModel, arguments: dict[str, object]) -> None:
    prefill = lt.run_prefill(llama, tokens(20))
    with pytest.raises(InvalidInputError):
        prefill.attention(**arguments)


@pytest.mark.parametrize("arguments", [{"bins": 0}, {"bins": 2.5}, {"reduce": "median"}])
def test_ways_to_pool_that_do_not_exist_are_refused(llama: PreTrainedModel, arguments: dict[str, object]) -> None:
    prefill = lt.run_prefill(llama, tokens(20))
    with pytest.raises(InvalidInputError):
        prefill.pooled(0, 0, **arguments)


def test_bfloat16_tiles_are_float32() -> None:
    model = make_tiny("llama", torch.bfloat16)
    tile = lt.run_prefill(model, tokens(30)).attention(0, 0)
    assert tile.dtype == np.float32
    np.testing.assert_allclose(tile.sum(axis=1), 1.0, atol=2e-2)
