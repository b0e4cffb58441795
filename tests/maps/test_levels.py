"""Levels of a map against brute force over the whole eager attention matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attached
from lighttransfer_core.errors import InvalidInputError
from lighttransfer_core.keep import Keep
from lighttransfer_core.maps import levels
from lighttransfer_core.maps.levels import TILE, Pyramid, base_level, fine_tile, tile_tokens, top_level
from lighttransfer_core.maps.view import Source, View
from lighttransfer_core.prefill import Prefill
from tests.conftest import tokens
from tests.reference import eager_attentions

Matrix = npt.NDArray[np.float64]


def whole(model: PreTrainedModel, ids: torch.Tensor, view: View) -> Matrix:
    """The map of a view, `[T, T]`, from eager attention."""
    layers = torch.stack(eager_attentions(model, ids))[:, 0].double().numpy()

    def of(source: Source) -> Matrix:
        some = layers if source.layer is None else layers[source.layer : source.layer + 1]
        chosen: Matrix = some if source.head is None else some[:, source.head : source.head + 1]
        return chosen.mean(axis=(0, 1))

    return of(view.source) - (0.0 if view.minus is None else of(view.minus))


def brute_force(matrix: Matrix, level: int, reduce: str) -> Matrix:
    cell, total = 2**level, len(matrix)
    count = -(-total // cell)
    out = np.full((count, count), np.nan)
    causal = np.tril(np.ones_like(matrix, dtype=bool))
    for row in range(count):
        for col in range(count):
            at = (slice(row * cell, (row + 1) * cell), slice(col * cell, (col + 1) * cell))
            values = matrix[at][causal[at]]
            if values.size:
                out[row, col] = values[np.abs(values).argmax()] if reduce == "max" else values.mean()
    return out


def all_tiles(prefill: Prefill, view: View, level: int, reduce: str) -> Matrix:
    count = -(-prefill.num_tokens // (TILE * 2**level))
    pyramid = Pyramid(prefill, view)

    def tile(row: int, col: int) -> npt.NDArray[np.float32]:
        if level < base_level(prefill.num_tokens):
            return fine_tile(prefill, view, level, row, col, reduce)
        return pyramid.tile(level, row, col, reduce)

    return np.block([[tile(row, col) for col in range(count)] for row in range(count)])


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several levels, tiles and strips on a short prompt; the real sizes have their own test."""
    for name, value in (("TILE", 16), ("_BASE_CELLS", 32), ("_STRIP_ROWS", 24)):
        monkeypatch.setattr(levels, name, value)
    monkeypatch.setattr("tests.maps.test_levels.TILE", 16)


@pytest.mark.parametrize("view", ["1.2", "3.*", "*.1", "*.*", "1.2-2.0", "2.*-*.3"])
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("length", [128, 131])
@pytest.mark.usefixtures("small_tiles")
def test_every_level_equals_brute_force(llama: PreTrainedModel, view: str, reduce: str, length: int) -> None:
    ids, shown = tokens(length), View.parse(view)
    prefill, matrix = lt.run_prefill(llama, ids), whole(llama, ids, shown)
    assert top_level(length) > base_level(length) > 0
    for level in range(top_level(length) + 1):
        actual, expected = all_tiles(prefill, shown, level, reduce), brute_force(matrix, level, reduce)
        # where both signs reach the same distance from 0, either is the extreme
        highest, lowest = (brute_force(part, level, "max") for part in (np.maximum(matrix, 0), np.minimum(matrix, 0)))
        tied = np.isclose(highest, -lowest)
        np.testing.assert_allclose(np.abs(actual), np.abs(expected), atol=1e-5, err_msg=f"level {level}")
        np.testing.assert_allclose(actual[~tied], expected[~tied], atol=1e-5, err_msg=f"level {level}")


@pytest.mark.usefixtures("small_tiles")
def test_every_architecture(tiny: PreTrainedModel) -> None:
    ids, shown = tokens(70), View.parse("1.2")
    prefill, matrix = lt.run_prefill(tiny, ids), whole(tiny, ids, shown)
    for level in range(top_level(70) + 1):
        np.testing.assert_allclose(
            all_tiles(prefill, shown, level, "max"), brute_force(matrix, level, "max"), atol=1e-5
        )


@pytest.mark.parametrize("length", [512, 523])
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_the_real_sizes(llama: PreTrainedModel, length: int, reduce: str) -> None:
    llama.config.max_position_embeddings = 1024
    ids, shown = tokens(length), View.parse("0.1")
    prefill, matrix = lt.run_prefill(llama, ids), whole(llama, ids, shown)
    for level in range(top_level(length) + 1):
        actual = all_tiles(prefill, shown, level, reduce)
        np.testing.assert_allclose(actual, brute_force(matrix, level, reduce), atol=1e-5)


@pytest.mark.usefixtures("small_tiles")
def test_a_planted_needle_is_seen_at_every_level(llama: PreTrainedModel) -> None:
    prefill, shown = lt.run_prefill(llama, tokens(131)), View.parse("2.3")
    record = prefill.records[2]
    query = 117
    scores = record.scale * record.key[3 // 3, : query + 1] @ record.query[3, query]
    key = int(scores.argmax())
    record.lse[3] += 30.0  # everything else fades
    record.lse[3, query] = scores[key] - np.log(0.9)
    for level in range(top_level(131) + 1):
        tiles = all_tiles(prefill, shown, level, "max")
        assert tiles[query >> level, key >> level] == pytest.approx(0.9, abs=1e-5)


@pytest.mark.usefixtures("small_tiles")
def test_rows_whose_queries_were_not_kept_are_masked(llama: PreTrainedModel) -> None:
    ids, shown = tokens(131), View.parse("1.2")
    part, full = lt.run_prefill(llama, ids, Keep(query_rows=40)), lt.run_prefill(llama, ids)
    for level in range(top_level(131) + 1):
        seen, expected = (all_tiles(prefill, shown, level, "max") for prefill in (part, full))
        kept_from = -(-(131 - 40) // 2**level)
        assert np.isnan(seen[:kept_from]).all()
        np.testing.assert_array_equal(seen[kept_from:], expected[kept_from:])


def test_a_whole_prompt_in_one_tile(llama: PreTrainedModel) -> None:
    assert (top_level(1), top_level(256), top_level(257), base_level(8192), top_level(8192)) == (0, 0, 1, 3, 5)
    prefill = lt.run_prefill(llama, tokens(3))
    assert Pyramid(prefill, View.parse("0.0")).tile(0, 0, 0, "max").shape == (3, 3)


@pytest.mark.parametrize(("level", "place"), [(0, 2), (3, 0), (0, -1), (-1, 0)])
def test_tiles_that_do_not_exist_are_refused(level: int, place: int) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        tile_tokens(400, level, place)


def test_a_rectangle_off_the_grid_is_refused(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(40))
    for rows in ((3, 20), (8, 8), (0, 41)):
        with pytest.raises(InvalidInputError, match="cells of 4 tokens"):
            levels.pooled(prefill, View.parse("0.0"), 2, rows, (0, 40))
    with pytest.raises(InvalidInputError, match="max"):
        fine_tile(prefill, View.parse("0.0"), 0, 0, 0, "median")


def test_the_pyramid_holds_no_prefill(llama: PreTrainedModel) -> None:
    with attached(llama):
        prefill = lt.run_prefill(llama, tokens(40))
    pyramid = Pyramid(prefill, View.parse("0.0"))
    assert pyramid.nbytes == 2 * 40 * 40 * 4
    assert not any(value is prefill for value in vars(pyramid).values())
