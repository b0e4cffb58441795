"""The facts that must hold, on the embedded model and real prompts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.decoding import Branch
from lighttransfer_core.maps.levels import finish, pooled
from lighttransfer_core.maps.profiles import cell_value
from lighttransfer_core.maps.view import View
from lighttransfer_core.models import LoadedModel, render_prompt
from lighttransfer_core.types import ConversionPlan, Window
from tests.reference import masked_logits

PROMPTS = Path(__file__).parents[1] / "assets" / "prompts"
WINDOW = Window(4, 252)


@pytest.fixture(scope="module")
def smollm() -> Iterator[LoadedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield lt.load_model("smollm2", device="cpu", dtype="float32")
    torch.set_num_threads(threads)


def prompt_ids(lm: LoadedModel, name: str, length: int) -> Tensor:
    """The last tokens of a demo prompt, so that its question is among them."""
    demo = tomllib.loads((PROMPTS / f"{name}.toml").read_text())
    return render_prompt(lm.tokenizer, f"{demo['text']}\n\n{demo['question']}", "raw").input_ids[:, -length:]


@torch.no_grad()
def eager_rows(model: PreTrainedModel, ids: Tensor, last: int, cache: DynamicCache | None = None) -> list[Tensor]:
    """Eager attention weights `[H, last, T]` of the last rows, layer by layer; goes on from what the cache holds."""
    cache = DynamicCache(config=model.config) if cache is None else cache
    model(ids[:, cache.get_seq_length() : -last], past_key_values=cache, use_cache=True, logits_to_keep=1)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        output = model(ids[:, -last:], past_key_values=cache, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    return [layer[0] for layer in output.attentions]


@pytest.mark.parametrize("name", ["policy", "dialogue", "code"])
def test_lazy_ratio_equals_float64_eager_attention(smollm: LoadedModel, name: str) -> None:
    ids = prompt_ids(smollm, name, 640)
    scores = lt.score_layers(lt.run_prefill(smollm, ids, chunk_tokens=256), WINDOW, last=32, metric="lazy_ratio")
    smollm.model.double()
    try:
        weights = [layer.numpy() for layer in eager_rows(smollm.model, ids, 32)]
    finally:
        smollm.model.float()
    expected = [float((w[..., : WINDOW.sink].sum(-1) + w[..., -WINDOW.recent :].sum(-1)).mean()) for w in weights]
    np.testing.assert_allclose(scores.values, expected, atol=1e-5)
    assert np.ptp(expected) > 0.05


def test_a_hybrid_branch_equals_the_hand_masked_model(smollm: LoadedModel) -> None:
    ids, lazy = prompt_ids(smollm, "policy", 500), (0, 3, 11, 12, 13, 20, 29)
    window = Window(4, 100)
    branch = Branch(lt.run_prefill(smollm, ids[:, :400]), ConversionPlan(lazy, window))
    parts = [branch.forward(ids[:, 400:436]), *(branch.forward(ids[:, t : t + 1]) for t in range(436, 500))]
    actual, expected = torch.cat(parts), masked_logits(smollm.model, ids, 400, lazy, window)[0, 400:]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert torch.equal(actual.argmax(-1), expected.argmax(-1))


def test_no_plan_matches_transformers_and_first_tokens_agree(smollm: LoadedModel) -> None:
    ids = prompt_ids(smollm, "dialogue", 400)
    prefill = lt.run_prefill(smollm, ids)
    with torch.no_grad():
        generated = smollm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            return_dict_in_generate=True,
            output_logits=True,
        )
    events = list(lt.decode(prefill, None, 24))
    assert [e.token_id for e in events] == generated.sequences[0, 400:].tolist()[: len(events)]
    torch.testing.assert_close(prefill.logits, generated.logits[0][0], atol=1e-4, rtol=0)
    everything = ConversionPlan(tuple(range(30)), Window(4, 60))
    assert next(iter(lt.decode(prefill, everything))).token_id == events[0].token_id
    same = [(e.token_id, e.logprob) for e in lt.decode(prefill, ConversionPlan(), 24)]
    assert same == [(e.token_id, e.logprob) for e in events]


def test_tiles_equal_eager_attention(smollm: LoadedModel) -> None:
    ids = prompt_ids(smollm, "code", 400)
    prefill, weights = lt.run_prefill(smollm, ids), eager_rows(smollm.model, ids, 48)
    for layer, head in ((0, 0), (11, 4), (29, 8)):
        tile = prefill.attention(layer, head, rows=(352, 400), cols=(10, 390))
        np.testing.assert_allclose(tile, weights[layer][head, :, 10:390].numpy(), atol=1e-5)


def test_maps_of_4096_tokens_equal_eager_attention(smollm: LoadedModel) -> None:
    """Rectangles, cells and values at random places, the rows taken where eager attention can be had."""
    ids = torch.cat([prompt_ids(smollm, name, 2048) for name in ("policy", "code")], dim=1)
    prefill, chance = lt.run_prefill(smollm, ids), np.random.default_rng(0)
    cache = DynamicCache(config=smollm.model.config)
    for stop in (1311, 4096):
        eager = eager_rows(smollm.model, ids[:, :stop], 32, cache)
        for _ in range(8):
            layer, head = int(chance.integers(30)), int(chance.integers(9))
            expected = eager[layer][head].numpy()
            left = int(chance.integers(stop - 40))
            right = int(chance.integers(left + 1, stop))
            tile = prefill.attention(layer, head, rows=(stop - 32, stop), cols=(left, right))
            np.testing.assert_allclose(tile, expected[:, left:right], atol=1e-5)
            view, row, key = View.parse(f"{layer}.{head}"), int(chance.integers(stop - 32, stop)), left
            assert cell_value(prefill, view, 0, row, key, "max", WINDOW).value == pytest.approx(
                expected[row - stop + 32, key], abs=1e-5
            )
            start = (stop - 32 + 7) // 8 * 8
            cells = finish(
                pooled(prefill, view, 3, (start, start + 16), (0, 1024)), 3, (start, start + 16), (0, 1024), "max"
            )
            blocks = expected[start - stop + 32 :][:16, :1024].reshape(2, 8, 128, 8).max(axis=(1, 3))
            np.testing.assert_allclose(cells, blocks, atol=1e-5)


def test_half_the_layers_lazy_halve_the_bytes_that_the_window_leaves(smollm: LoadedModel) -> None:
    prefill = lt.run_prefill(smollm, prompt_ids(smollm, "policy", 600))
    plan = lt.plan_from_scores(lt.score_layers(prefill, WINDOW))
    assert len(plan.lazy_layers) == 15
    event = list(lt.decode(prefill, plan, 3))[-1]
    per_token = smollm.spec.kv_bytes_per_token_per_layer
    assert sorted(event.kv_bytes) == [256 * per_token] * 15 + [602 * per_token] * 15
