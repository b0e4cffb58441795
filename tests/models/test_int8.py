from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lighttransfer_core as lt
from lighttransfer_core.attention.projection import output_projections
from lighttransfer_core.models.int8 import Int8Linear, quantised, use_int8_weights
from tests.conftest import make_tiny, tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_is_rounded_to_255_steps_of_its_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(12, 40) * torch.logspace(-3, 2, 12)[:, None]).to(dtype)
    weight[5] = 0
    integers, scale = quantised(weight)
    assert integers.dtype == torch.int8
    assert scale.dtype == dtype
    error = (integers.double() * scale.double()[:, None] - weight.double()).abs()
    # half a step, and what the factor's own rounding adds at the far end
    allowed = scale.double()[:, None] * (0.5 if dtype == torch.float32 else 1.0) * (1 + 1e-5)
    assert bool((error <= allowed).all())
    assert int(integers.abs().max()) == 127
    assert not integers[5].any()


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_few_rows_and_many_are_the_same_product(bias: bool) -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(32, 16, bias=bias, dtype=torch.bfloat16))
    exact = layer.restored().double()
    for shape in ((32,), (1, 32), (2, 8, 32), (17, 32), (33, 32), (2, 40, 32)):
        given = torch.randn(shape, dtype=torch.bfloat16)
        expected = given.double() @ exact.T + (layer.bias.double() if bias else 0)
        found = layer(given)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.02)


def test_a_gradient_flows_through_the_restored_weight() -> None:
    layer = Int8Linear(nn.Linear(32, 16, dtype=torch.bfloat16))
    given = torch.ones(1, 32, dtype=torch.bfloat16, requires_grad=True)
    layer(given).sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad[0], layer.restored().sum(dim=0))


def test_a_model_of_rounded_weights_is_the_model_with_its_weights_restored(architecture: str) -> None:
    """Prefill, scores that read the projection, and decoding."""
    rounded, restored = (make_tiny(architecture, torch.bfloat16) for _ in range(2))
    use_int8_weights(rounded)
    with torch.no_grad():
        for one, other in zip(rounded.modules(), copy.deepcopy(restored).modules(), strict=False):
            assert type(one) is type(other) or isinstance(one, Int8Linear)
        for name, module in restored.named_modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(rounded.get_submodule(name).restored())
    prefills = [lt.run_prefill(model, tokens(50)) for model in (rounded, restored)]
    close = {"atol": 0.06, "rtol": 0.05}
    torch.testing.assert_close(prefills[0].logits, prefills[1].logits, **close)
    torch.testing.assert_close(output_projections(rounded)(1), output_projections(restored)(1))
    scores = [lt.score_layers(one, lt.Window(3, 8), last=6, metric="output_change").values for one in prefills]
    np.testing.assert_allclose(*scores, atol=0.05)
    plan = lt.ConversionPlan(prefills[0].spec.convertible_layers[:1], lt.Window(3, 8))
    nll = [lt.continuation_nll(one, plan, tokens(12, seed=2)) for one in prefills]
    torch.testing.assert_close(*nll, atol=0.15, rtol=0.05)


def test_it_is_a_precision_to_load_in(tmp_path: Path) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    lm, whole = (lt.load_model(tmp_path, "cpu", dtype) for dtype in ("int8", "bfloat16"))
    linear = [module for module in lm.model.modules() if isinstance(module, Int8Linear)]
    assert linear
    assert lm.spec.dtype == "bfloat16"
    assert "8 bits" in lm.spec.notes
    saved = sum(module.weight.numel() - 2 * module.out_features for module in linear)
    assert lm.spec.weight_bytes == whole.spec.weight_bytes - saved
    assert lm.spec.kv_bytes_per_token_per_layer == whole.spec.kv_bytes_per_token_per_layer
