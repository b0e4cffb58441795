from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.models.gpt_oss import modeling_gpt_oss
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
    assert torch.equal(rotation(k=key, q=query, sin=sin, cos=cos)[0], rotate(query, key, cos, sin)[0])
    assert calls == [5]
    others = [
        (query.contiguous(), key, cos, sin),
        (query, key.double(), cos, sin),
        (query, heads(3, 5, 2, 8, torch.float32), cos, sin),
        (query.double(), key.double(), cos.double(), sin.double()),
        (query, key, cos[..., :1], sin[..., :1]),
        (query[:1, :, :1].expand(2, 4, 5, 8), key, cos, sin),
        (query, key, torch.randn(1, 8, 5).transpose(1, 2), sin),
    ]
    for other in others:
        for found, expected in zip(rotation(*other), apply_rotary_pos_emb(*other), strict=True):
            assert torch.equal(found, expected)
    rotation(query[:, :, :1].transpose(1, 2), key[:, :, :1].transpose(1, 2), cos[:, :1], sin[:, :1], unsqueeze_dim=2)
    for unlike in (heads(2, 5, 2, 6, torch.float32), heads(2, 4, 2, 8, torch.float32)):
        with pytest.raises(RuntimeError, match="must match"):
            rotation(query, unlike, cos, sin)
    for unlike in (torch.randn(1, 4, 8), torch.randn(3, 5, 8), torch.randn(5, 8)):
        with pytest.raises(RuntimeError, match="must match"):
            rotation(query, key, unlike, unlike)
    with torch.enable_grad():
        found, _ = rotation(query.detach().requires_grad_(), key, cos, sin)
    assert found.requires_grad
    assert calls == [5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_says_the_same_to_the_bit(architecture: str, dtype: torch.dtype, calls: list[int]) -> None:
    model, ids = make_tiny(architecture, dtype), torch.arange(5, 45)[None]
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
    assert any(type(module) is LlamaAttention for module in make_tiny("llama").modules())
    assert modeling_llama.apply_rotary_pos_emb is apply_rotary_pos_emb


def scaled(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return apply_rotary_pos_emb(q, k, cos * 1.01, sin)


def of_one(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    raise AssertionError("it is not called")


def with_more(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, sections: list[int]) -> tuple[Tensor, Tensor]:
    raise AssertionError("it is not called")


def without_key(q: Tensor, k: Tensor | None = None, cos: Tensor | None = None, sin: Tensor | None = None) -> None:
    raise AssertionError("it is not called")


def of_halves(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """As GPT-OSS has it, whose cosines are of half of a head."""
    return modeling_gpt_oss.apply_rotary_pos_emb(q, k, cos, sin)


@pytest.mark.parametrize("other", [scaled, of_one, with_more, without_key, of_halves])
def test_another_function_of_the_name_stays(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", other)
    model = make_tiny("llama")
    use_quick_rotations(model)
    assert any(type(module) is LlamaAttention for module in model.modules())


def test_a_model_that_rotates_otherwise_is_loaded(tmp_path: Path) -> None:
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "num_local_experts": 2, "num_experts_per_tok": 1}
    GptOssForCausalLM(GptOssConfig(**sizes, **heads)).save_pretrained(tmp_path)
    assert lt.load_model(tmp_path, "cpu", "float32").spec.num_layers == 2


def test_a_forward_of_its_own_stays() -> None:
    model = make_tiny("llama")
    attention: nn.Module = next(module for module in model.modules() if isinstance(module, LlamaAttention))
    attention.forward = attention.forward
    use_quick_rotations(model)
    assert type(attention) is LlamaAttention


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_models_that_are_loaded_have_it(dtype: str, tmp_path: Path, calls: list[int]) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    lm = lt.load_model(tmp_path, "cpu", dtype)
    calls.clear()
    with torch.no_grad():
        lm.model(torch.arange(5, 25)[None])
    assert calls == [20] * lm.spec.num_layers
