from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.keep import Keep
from lighttransfer_core.maps import heads
from lighttransfer_core.maps.codes import MASKED, decode
from lighttransfer_core.maps.heads import head_overview
from lighttransfer_core.types import Window
from tests.conftest import tokens
from tests.reference import eager_attentions

WINDOW = Window(3, 11)


@pytest.mark.parametrize("at_once", [1 << 24, 1])
def test_thumbnails_and_characters_equal_brute_force(
    tiny: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(heads, "_SCORES_AT_ONCE", at_once)
    ids = torch.cat([tokens(45, seed=4), tokens(45, seed=4)], dim=1)  # so that every token of the second half recurs
    layers = torch.stack(eager_attentions(tiny, ids))[:, 0].double().numpy()
    found = head_overview(lt.run_prefill(tiny, ids), WINDOW)
    rows, side = np.array(found.rows), found.thumbnails.shape[-1]
    assert side == 48
    assert rows[-1] == 89
    assert found.thumbnails.shape == (*layers.shape[:2], 48, 48)
    sampled = layers[:, :, rows]
    edges = np.arange(side + 1) * 90 // side
    expected = np.stack([sampled[..., a:b].max(axis=-1) for a, b in pairwise(edges)], axis=-1)
    hidden = edges[None, :-1] > rows[:, None]
    assert (found.thumbnails[..., hidden] == MASKED).all()
    shown = decode(found.thumbnails)[..., ~hidden]
    np.testing.assert_allclose(shown, expected[..., ~hidden], rtol=0.04, atol=2e-7)

    queries, keys = rows[:, None], np.arange(90)
    text = ids[0].numpy()
    followed = np.zeros((len(rows), 90), dtype=bool)
    for at, row in enumerate(rows):
        followed[at, 1 : row + 1] = text[:row] == text[row]
    masses = {
        "sink": (sampled * (keys < 3)).sum(-1).mean(-1),
        "recent": (sampled * ((keys >= 3) & (keys > queries - 11))).sum(-1).mean(-1),
        "previous": (sampled * (keys == queries - 1)).sum(-1).mean(-1),
        "induction": (sampled * followed).sum(-1)[:, :, followed.any(axis=1)].mean(-1),
        "entropy": -(sampled * np.log2(np.maximum(sampled, 1e-300))).sum(-1).mean(-1),
        "distance": (sampled * (queries - keys)).sum(-1).mean(-1),
    }
    for name, expected_values in masses.items():
        np.testing.assert_allclose(found.characters[name], expected_values, atol=2e-4, err_msg=name)


def test_a_text_that_never_repeats_has_no_induction(llama: PreTrainedModel) -> None:
    found = head_overview(lt.run_prefill(llama, torch.arange(1, 40)[None]), WINDOW)
    assert not found.characters["induction"].any()


@pytest.mark.parametrize("length", [1, 2, 30])
def test_short_prompts(llama: PreTrainedModel, length: int) -> None:
    found = head_overview(lt.run_prefill(llama, tokens(length)), WINDOW)
    assert found.thumbnails.shape[-1] == length
    assert found.rows == tuple(range(length))


def test_only_kept_rows_are_sampled(llama: PreTrainedModel) -> None:
    found = head_overview(lt.run_prefill(llama, tokens(90), Keep(query_rows=50)), WINDOW)
    assert (found.rows[0], found.rows[-1]) == (40, 89)
