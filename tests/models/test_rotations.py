from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb

import lighttransfer_core as lt
from lighttransfer_core.models import rotations
from lighttransfer_core.models.rotations import can_rotate, quick_rotation, rotate, use_quick_rotations
from tests.conftest import make_tiny

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def heads(batch: int, tokens: int, count: int, size: int, dtype: torch.dtype, more: int = 0) -> Tensor:
    """As a model lays them out, heads beside each other for each token, perhaps with more behind them."""
    made = torch.randn(batch, tokens, count * size + more).to(dtype)[..., : count * size]
    return made.unflatten(2, (count, size)).transpose(1, 2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each use of the loop had."""
    seen: list[int] = []

    def counting(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(query.shape[2])
        return rotate(query, key, cos, sin)

    monkeypatch.setattr(rotations, "rotate", counting)
    return seen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1, 9, 3, 64), (1, 7, 2, 1, 6), (3, 1, 4, 4, 2), (2, 5, 3, 1, 34)])
@pytest.mark.parametrize("of_each", [False, True])
@pytest.mark.parametrize("more", [0, 5])
def test_the_loop_is_torchs_operations_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: int, shape: tuple[int, ...], of_each: bool, more: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(rotations, "_PART_ELEMENTS", 1)
    batch, tokens, count, key_count, size = shape
    query, key = (heads(batch, tokens, number, size, dtype, more) for number in (count, key_count))
    cos, sin = torch.randn(2, batch if of_each else 1, tokens, size).to(dtype)
    assert can_rotate(query, key, cos, sin)
    for found, expected in zip(rotate(query, key, cos, sin), apply_rotary_pos_emb(query, key, cos, sin), strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, expected)
        assert found.transpose(1, 2).is_contiguous()


@torch.no_grad()
def test_what_the_loop_cannot_read_is_torchs(calls: list[int]) -> None:
    query, key = heads(2, 5, 4, 8, torch.float32), heads(2, 5, 2, 8, torch.float32)
    cos, sin = torch.randn(2, 1, 5, 8)
    rotation = quick_rotation(apply_rotary_pos_emb)
    rotation(query, key, cos, sin)
    assert calls == [5]
    others = [
        (query.contiguous(), key, cos, sin),
        (query, key.double(), cos, sin),
        (query.double(), key.double(), cos.double(), sin.double()),
        (query, key, cos[..., :1], sin[..., :1]),
        (query, key, torch.randn(1, 8, 5).transpose(1, 2), sin),
    ]
    for other in others:
        for found, expected in zip(rotation(*other), apply_rotary_pos_emb(*other), strict=True):
            assert torch.equal(found, expected)
    rotation(query[:, :, :1].transpose(1, 2), key[:, :, :1].transpose(1, 2), cos[:, :1], sin[:, :1], unsqueeze_dim=2)
    for unlike in (torch.randn(1, 4, 8), torch.randn(3, 5, 8), torch.randn(5, 8)):
        with pytest.raises(RuntimeError, match="must match"):
            rotation(query, key, unlike, unlike)
    with torch.enable_grad():
        found, _ = rotation(query.detach().requires_grad_(), key, cos, sin)
    assert found.requires_grad
    assert calls == [5]


def test_a_model_says_the_same_to_the_bit(architecture: str, calls: list[int]) -> None:
    model, ids = make_tiny(architecture), torch.arange(5, 45)[None]
    with torch.no_grad():
        before = model(ids).logits
        use_quick_rotations(model)
        calls.clear()
        assert torch.equal(model(ids).logits, before)
        assert torch.equal(copy.deepcopy(model)(ids).logits, before)
    assert set(calls) == {40}


def test_only_this_model_has_it() -> None:
    model = make_tiny("llama")
    use_quick_rotations(model)
    known = [module for module in model.modules() if isinstance(module, LlamaAttention)]
    assert {type(module).__name__ for module in known} == {"LlamaAttention"}
    assert all(type(module) is not LlamaAttention for module in known)
    assert all(type(module) is not type(known[0]) for module in make_tiny("llama").modules())
    assert modeling_llama.apply_rotary_pos_emb is apply_rotary_pos_emb


def test_a_function_that_computes_something_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return apply_rotary_pos_emb(query, key, cos * 1.01, sin)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", other)
    model = make_tiny("llama")
    use_quick_rotations(model)
    assert any(type(module) is LlamaAttention for module in model.modules())


def test_a_forward_of_its_own_stays() -> None:
    model = make_tiny("llama")
    attention: nn.Module = next(module for module in model.modules() if isinstance(module, LlamaAttention))
    attention.forward = attention.forward
    use_quick_rotations(model)
    assert type(attention) is LlamaAttention


def test_models_that_are_loaded_have_it(tmp_path: Path, calls: list[int]) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    lm = lt.load_model(tmp_path, "cpu", "float32")
    calls.clear()
    with torch.no_grad():
        lm.model(torch.arange(5, 25)[None])
    assert calls == [20] * lm.spec.num_layers
