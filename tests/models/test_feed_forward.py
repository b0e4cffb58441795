from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

import lighttransfer_core as lt
from lighttransfer_core.models import feed_forward
from lighttransfer_core.models.feed_forward import use_stretches
from tests.conftest import make_tiny, tokens

CONFIG = LlamaConfig(hidden_size=24, intermediate_size=64, num_attention_heads=2)


def mlp(dtype: torch.dtype = torch.float32) -> LlamaMLP:
    torch.manual_seed(2)
    return LlamaMLP(CONFIG).to(dtype).eval()


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At most seven tokens at once; how many each call of the layer's own had."""
    seen: list[int] = []
    forward = LlamaMLP.forward

    def counting(self: LlamaMLP, x: Tensor) -> Tensor:
        seen.append(x.shape[1])
        output: Tensor = forward(self, x)
        return output

    monkeypatch.setattr(LlamaMLP, "forward", counting)
    monkeypatch.setattr(feed_forward, "_FEWEST_ROWS", 7)
    monkeypatch.setattr(feed_forward, "_AT_ONCE", 1)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "length", "stretches"), [(1, 7, [7]), (1, 8, [4, 4]), (3, 5, [5, 5, 5]), (1, 0, [0])]
)
@torch.no_grad()
def test_many_tokens_are_computed_in_equal_stretches(
    dtype: torch.dtype, batch: int, length: int, stretches: list[int], lengths: list[int]
) -> None:
    layer = mlp(dtype)
    model = nn.Sequential(layer)
    given = torch.randn(batch, length, 24, dtype=dtype)
    expected = layer(given)
    use_stretches(model)
    lengths.clear()
    found = model(given)
    assert lengths == stretches
    assert found.shape == expected.shape
    close = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, atol=close, rtol=close)


@torch.no_grad()
def test_a_tensor_that_lies_otherwise_is_computed_alike(lengths: list[int]) -> None:
    layer, given = mlp(), torch.randn(20, 2, 24).transpose(0, 1)
    expected = layer(given)
    use_stretches(nn.Sequential(layer))
    torch.testing.assert_close(layer(given), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(given), expected)


def test_gradients_flow_as_before(lengths: list[int]) -> None:
    layer = mlp()
    use_stretches(nn.Sequential(layer))
    lengths.clear()
    layer(torch.randn(1, 30, 24)).sum().backward()
    assert lengths == [30]
    assert layer.down_proj.weight.grad is not None


@torch.no_grad()
def test_layers_whose_linear_ones_are_replaced_afterwards_go_on(lengths: list[int]) -> None:
    layer, given = mlp(), torch.randn(1, 20, 24)
    expected = layer(given)
    use_stretches(nn.Sequential(layer))
    layer.gate_proj, layer.up_proj, layer.down_proj = map(
        nn.Sequential, (layer.gate_proj, layer.up_proj, layer.down_proj)
    )
    torch.testing.assert_close(layer(given), expected)


def test_stretches_are_as_long_as_their_widest_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert feed_forward._rows_at_once(mlp()) == (8 << 20) // (64 * 4)
    assert feed_forward._rows_at_once(mlp(torch.bfloat16)) == (8 << 20) // (64 * 2)
    monkeypatch.setattr(feed_forward, "_AT_ONCE", 1 << 10)
    assert feed_forward._rows_at_once(mlp()) == 256


class _Mixing(LlamaMLP):
    """Each token is given what came before it."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x.cumsum(dim=1))
        return output


class _TwoOutputs(LlamaMLP):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class _Gated(LlamaMLP):
    def forward(self, x: Tensor, gate: float = 1.0) -> Tensor:
        output: Tensor = gate * super().forward(x)
        return output


class _Backwards(LlamaMLP):
    """Its layers in another order than they are used in."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.gate_proj, self.up_proj = (self._modules.pop(name) for name in ("gate_proj", "up_proj"))


class _Scaled(LlamaMLP):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(24))


@pytest.mark.parametrize("kind", [_Mixing, _TwoOutputs, _Gated, _Backwards, _Scaled])
def test_what_is_no_plain_feed_forward_layer_stays(kind: type[LlamaMLP]) -> None:
    layer = kind(CONFIG)
    use_stretches(nn.Sequential(layer))
    assert type(layer) is kind


def test_only_this_model_has_them() -> None:
    model = make_tiny("llama")
    use_stretches(model)
    known = [module for module in model.modules() if isinstance(module, LlamaMLP)]
    assert {type(module).__name__ for module in known} == {"LlamaMLP"}
    assert all(type(module) is not LlamaMLP for module in known)
    assert any(type(module) is LlamaMLP for module in make_tiny("llama").modules())


@torch.no_grad()
def test_a_model_says_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_forward, "_FEWEST_ROWS", 7)
    monkeypatch.setattr(feed_forward, "_AT_ONCE", 1)
    model, ids = make_tiny(architecture), tokens(40)
    before = model(ids).logits
    use_stretches(model)
    torch.testing.assert_close(model(ids).logits, before, atol=1e-4, rtol=1e-4)


def test_loaded_models_have_them(tmp_path: Path) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    model = lt.load_model(tmp_path, "cpu", "float32").model
    known = [module for module in model.modules() if isinstance(module, LlamaMLP)]
    assert known
    assert all(type(module) is not LlamaMLP for module in known)
