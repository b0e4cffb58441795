"""Cuts through a map against the whole eager attention matrix."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.errors import InvalidInputError, PrefillMismatchError
from lighttransfer_core.keep import Keep
from lighttransfer_core.maps.profiles import cell_value, column_profile, lost_mass, row_maxima, row_profile
from lighttransfer_core.maps.view import Source, View
from lighttransfer_core.types import Window
from tests.conftest import tokens
from tests.maps.test_levels import brute_force, whole

WINDOW = Window(3, 11)


@pytest.mark.parametrize("view", ["1.2", "2.*", "*.*", "1.2-2.0"])
def test_rows_and_columns(llama: PreTrainedModel, view: str) -> None:
    ids, shown = tokens(90), View.parse(view)
    prefill, matrix = lt.run_prefill(llama, ids), whole(llama, ids, shown)
    np.testing.assert_allclose(row_profile(prefill, shown, (61, 62)), matrix[61], atol=1e-5)
    np.testing.assert_allclose(row_profile(prefill, shown, (20, 75)), matrix[20:75].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(column_profile(prefill, shown, 17), matrix[:, 17], atol=1e-5)
    maxima = row_maxima(prefill, shown, skip=3)
    np.testing.assert_allclose(maxima[0], np.abs(matrix).max(axis=1), atol=1e-5)
    np.testing.assert_allclose(maxima[1][4:], np.abs(matrix[4:, 3:]).max(axis=1), atol=1e-5)


@pytest.mark.parametrize("window", [WINDOW, Window(0, 5), Window(4, 200)], ids=str)
@pytest.mark.parametrize("source", [Source(1, 2), Source(1, None), Source(None, None)], ids=str)
def test_what_a_window_would_lose(tiny: PreTrainedModel, window: Window, source: Source) -> None:
    ids = tokens(90)
    matrix = whole(tiny, ids, View(source))
    queries, keys = np.arange(90)[:, None], np.arange(90)
    evicted = (keys >= window.sink) & (keys <= queries - window.recent)
    actual = lost_mass(lt.run_prefill(tiny, ids), source, window, (0, 90))
    np.testing.assert_allclose(actual, (matrix * evicted).sum(axis=1), atol=1e-5)


@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("view", ["1.2", "1.2-2.0"])
def test_the_value_of_a_cell_is_exact_and_names_its_pair(llama: PreTrainedModel, view: str, reduce: str) -> None:
    ids, shown = tokens(90), View.parse(view)
    prefill, matrix = lt.run_prefill(llama, ids), whole(llama, ids, shown)
    for level in (0, 2, 4):
        expected = brute_force(matrix, level, reduce)
        for row, col in [(90 - 1 >> level, 0), (50 >> level, 49 >> level), (33 >> level, 7 >> level)]:
            found = cell_value(prefill, shown, level, row, col, reduce, WINDOW)
            assert found.value == pytest.approx(expected[row, col], abs=1e-5)
            if reduce == "max":
                assert matrix[found.query, found.key] == pytest.approx(found.value, abs=1e-5)
            assert (found.kept is None) == (shown.minus is not None)


def test_the_kept_share_is_that_of_the_pairs_query(llama: PreTrainedModel) -> None:
    prefill = lt.run_prefill(llama, tokens(90))
    found = cell_value(prefill, View.parse("1.2"), 0, 70, 5, "max", WINDOW)
    assert found.kept == pytest.approx(1 - lost_mass(prefill, Source(1, 2), WINDOW, (70, 71))[0])


def test_places_that_do_not_exist_are_refused(llama: PreTrainedModel) -> None:
    prefill, view = lt.run_prefill(llama, tokens(40)), View.parse("0.0")
    with pytest.raises(InvalidInputError, match="do not exist"):
        row_profile(prefill, view, (39, 41))
    with pytest.raises(InvalidInputError, match="do not exist"):
        column_profile(prefill, view, 40)
    with pytest.raises(InvalidInputError, match="future"):
        cell_value(prefill, view, 0, 3, 4, "max", WINDOW)
    part = lt.run_prefill(llama, tokens(40), Keep(query_rows=8))
    with pytest.raises(PrefillMismatchError, match="kept the queries of rows 32"):
        cell_value(part, view, 0, 20, 4, "max", WINDOW)
    np.testing.assert_array_equal(column_profile(part, view, 4)[:32], 0.0)
    assert np.isnan(row_maxima(part, view, 0)[:, :32]).all()
