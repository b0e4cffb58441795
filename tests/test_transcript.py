"""Attention past the prompt, against eager attention with masks made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.attention import attention_layers
from lighttransfer_core.decoding import Branch
from lighttransfer_core.errors import PrefillMismatchError
from lighttransfer_core.maps.levels import Evicted, Pyramid, top_level
from lighttransfer_core.maps.profiles import cell_value, lost_mass
from lighttransfer_core.maps.view import Source, View
from lighttransfer_core.transcript import Transcript
from lighttransfer_core.types import ConversionPlan, Window
from tests.conftest import tokens
from tests.reference import masked_attentions

WINDOW = Window(2, 9)
PROMPT, DECODED = 40, 24


def lazy_layers(model: PreTrainedModel) -> tuple[int, ...]:
    return tuple(layer for layer, kind in enumerate(attention_layers(model.config)) if kind.window is None)[:2]


@torch.no_grad()
def transcript(model: PreTrainedModel, plan: ConversionPlan, ids: torch.Tensor) -> Transcript:
    prefill = lt.run_prefill(model, ids[:, :PROMPT])
    branch = Branch(prefill, plan, record=True)
    for part in (ids[:, PROMPT : PROMPT + 5], *ids[:, PROMPT + 5 :].split(1, dim=1)):
        branch.forward(part)
    decoded = branch.continuation()
    assert decoded is not None
    return Transcript(prefill, decoded)


@pytest.mark.parametrize("lazy", [True, False])
def test_rows_past_the_prompt_equal_the_reference(tiny: PreTrainedModel, lazy: bool) -> None:
    ids, layers = tokens(PROMPT + DECODED), lazy_layers(tiny) if lazy else ()
    found = transcript(tiny, ConversionPlan(layers, WINDOW), ids)
    assert (found.num_tokens, found.prompt_tokens) == (PROMPT + DECODED, PROMPT)
    assert torch.equal(found.input_ids, ids)
    everything = (0, PROMPT + DECODED)
    for layer, expected in enumerate(masked_attentions(tiny, ids, PROMPT, layers, WINDOW)):
        for head in (0, expected.shape[1] - 1):
            actual = found.records[layer].weights(head, everything, everything)
            np.testing.assert_allclose(actual, expected[0, head].numpy(), atol=1e-5)


def test_what_was_evicted_is_masked_not_zero(llama: PreTrainedModel) -> None:
    ids = tokens(PROMPT + DECODED)
    found = transcript(llama, ConversionPlan((1,), WINDOW), ids)
    tile = Pyramid(found, View.parse("1.2")).tile(0, 0, 0, "max")
    queries, keys = np.arange(PROMPT + DECODED)[:, None], np.arange(PROMPT + DECODED)
    evicted = (queries >= PROMPT) & (keys >= WINDOW.sink) & (keys <= queries - WINDOW.recent)
    np.testing.assert_array_equal(np.isnan(tile), evicted | (keys > queries))
    np.testing.assert_allclose(np.nansum(tile, axis=1), 1.0, atol=1e-5)
    assert not np.isnan(Pyramid(found, View.parse("0.2")).tile(0, 0, 0, "max")[-1]).any(), "a full layer saw all"
    assert lost_mass(found, Source(1, 2), WINDOW, (PROMPT, PROMPT + DECODED)).max() == 0.0
    assert cell_value(found, View.parse("1.2"), 0, 50, 49, "max", WINDOW).kept == pytest.approx(1.0)


def test_a_coarse_cell_is_masked_once_all_of_it_was_evicted() -> None:
    evicted = Evicted(prompt_tokens=8, window=Window(2, 3))
    rows, cols = (0, 14), (0, 14)
    pairs = np.array([[q >= 8 and 2 <= k <= q - 3 for k in range(14)] for q in range(14)])
    np.testing.assert_array_equal(evicted.cells(0, rows, cols), pairs)
    for level in (1, 2):
        cell = 2**level
        expected = np.array(
            [[pairs[r : r + cell, c : c + cell].all() for c in range(0, 14, cell)] for r in range(0, 14, cell)]
        )
        np.testing.assert_array_equal(evicted.cells(level, rows, cols), expected)
    assert top_level(14) == 0


def test_a_fork_records_nothing_and_a_branch_without_steps_has_no_continuation(llama: PreTrainedModel) -> None:
    ids = tokens(PROMPT + 4)
    prefill = lt.run_prefill(llama, ids[:, :PROMPT])
    branch = Branch(prefill, None, record=True)
    assert branch.continuation() is None
    branch.forward(ids[:, PROMPT : PROMPT + 2])
    twin = branch.fork()
    twin.forward(ids[:, PROMPT + 2 :])
    assert twin.continuation() is None
    decoded = branch.continuation()
    assert decoded is not None
    assert decoded.token_ids.tolist() == ids[0, PROMPT : PROMPT + 2].tolist()
    assert decoded.nbytes == 16 + 4 * 2 * ((6 + 2) * 8 + 6) * 4
    assert Branch(prefill, None).continuation() is None


def test_a_prefill_of_another_depth_is_refused(llama: PreTrainedModel) -> None:
    ids = tokens(PROMPT + 2)
    branch = Branch(lt.run_prefill(llama, ids[:, :PROMPT]), None, record=True)
    branch.forward(ids[:, PROMPT:])
    decoded = branch.continuation()
    assert decoded is not None
    short = lt.run_prefill(llama, ids[:, :PROMPT])
    with pytest.raises(PrefillMismatchError, match="layers"):
        Transcript(type(short)(short.lm, short.input_ids, short.records[:3], short.logits, 0.0, short.keep), decoded)
