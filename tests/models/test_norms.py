from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import lighttransfer_core as lt
from lighttransfer_core.models import norms
from lighttransfer_core.models.norms import QuickNorm, plain, quick, use_quick_norms
from tests.conftest import make_tiny

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Gated(LlamaRMSNorm):
    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        normed: Tensor = super().forward(hidden_states)
        return normed if gate is None else normed * gate


def made(norm: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """With a weight that is not the usual one."""
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        parameter.data = 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
    return nn.Sequential(norm).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 7), (2, 9, 33), (1, 4, 3, 8)])
def test_the_loop_is_the_norm_in_torchs_operations(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: int, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(norms, "_PART_ELEMENTS", 1)
    generator = torch.Generator().manual_seed(1)
    hidden = (torch.randn(shape, generator=generator) * 3).to(dtype)
    weight = torch.randn(shape[-1], generator=generator).to(dtype)
    found = quick(hidden, weight, 1e-5)
    assert found.dtype == dtype
    close = 1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, plain(hidden, weight, 1e-5), atol=0, rtol=close)
    wide = hidden.double()
    exact = weight.double() * wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(found.double(), exact, atol=close, rtol=2 * close)


def test_a_row_is_normed_alike_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "_PART_ELEMENTS", 100)
    hidden, weight = torch.randn(50, 65), torch.randn(65)
    whole = quick(hidden, weight, 1e-5)
    assert all(torch.equal(quick(row[None], weight, 1e-5)[0], one) for row, one in zip(hidden, whole, strict=True))


def test_what_is_no_number_stays_none() -> None:
    hidden = torch.ones(3, 8)
    hidden[0, 3], hidden[1, 2] = torch.nan, torch.inf
    assert quick(hidden, torch.ones(8), 1e-5).isnan().any(dim=1).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_are_known_by_what_they_return(dtype: torch.dtype) -> None:
    known = made(LlamaRMSNorm(24), dtype)
    given = torch.randn(2, 5, 24).to(dtype)
    with torch.no_grad():
        before = known(given)
        use_quick_norms(known)
        assert isinstance(known[0], QuickNorm)
        torch.testing.assert_close(known(given), before, atol=0, rtol=max(1e-6, 2 * torch.finfo(dtype).eps))
        assert torch.equal(copy.deepcopy(known)(given), known(given))
        # of another type than the weight, and not contiguous
        assert known(given.float()).shape == given.shape
        turned = given.transpose(0, 1)
        assert torch.equal(known(turned), known(given).transpose(0, 1))


@pytest.mark.parametrize(
    "other",
    [
        Gemma3RMSNorm(24),
        Gated(24),
        nn.LayerNorm(24, bias=False),
        nn.LayerNorm(24),
        nn.RMSNorm((2, 12), eps=1e-5),
        nn.RMSNorm(24),
    ],
    ids=lambda norm: repr(norm),
)
def test_others_stay_what_they_are(other: nn.Module) -> None:
    model = made(copy.deepcopy(other))
    use_quick_norms(model)
    assert type(model[0]) is type(other)


def test_a_forward_of_its_own_stays() -> None:
    model = made(LlamaRMSNorm(24))
    model[0].forward = lambda hidden: hidden
    use_quick_norms(model)
    assert type(model[0]) is LlamaRMSNorm


def test_a_norm_of_another_size_is_refused_as_ever() -> None:
    model = made(LlamaRMSNorm(24))
    use_quick_norms(model)
    with torch.no_grad(), pytest.raises(RuntimeError, match="must match"):
        model(torch.ones(3, 12))


def test_gradients_flow() -> None:
    model, given = made(LlamaRMSNorm(24)), torch.randn(2, 24, requires_grad=True)
    expected = torch.autograd.grad(model(given).square().sum(), [given, *model.parameters()])
    use_quick_norms(model)
    found = torch.autograd.grad(model(given).square().sum(), [given, *model.parameters()])
    torch.testing.assert_close(found, expected)


def test_models_that_are_loaded_have_them(tmp_path: Path) -> None:
    make_tiny("llama").save_pretrained(tmp_path)
    model = lt.load_model(tmp_path, "cpu", "float32").model
    norms_of_it = {str(module) for module in model.modules() if "Norm" in type(module).__name__}
    assert norms_of_it == {"QuickNorm(48, eps=1e-06)"}


def test_a_model_says_the_same_with_them(architecture: str) -> None:
    model, ids = make_tiny(architecture), torch.arange(5, 45)[None]
    with torch.no_grad():
        before = model(ids).logits
        use_quick_norms(model)
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-5)
    quick_norms = any(isinstance(module, QuickNorm) for module in model.modules())
    assert quick_norms == (architecture != "gemma3")
