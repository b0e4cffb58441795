from __future__ import annotations

import pytest
import torch

from lighttransfer_core.token_ids import likeliest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(97,), (1, 97), (5, 97), (2, 3, 97)])
def test_the_likeliest_are_those_of_argmax(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = likeliest(logits)
    assert found.dtype == torch.long
    assert torch.equal(found, logits.argmax(dim=-1))


def test_of_equal_ones_the_first() -> None:
    assert likeliest(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [-1.0, -2.0, 0.0]])).tolist() == [1, 0, 2]


def test_what_only_double_precision_tells_apart() -> None:
    assert int(likeliest(torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64))) == 1
    assert int(likeliest(torch.tensor([1.0, 2.0], requires_grad=True))) == 1


def test_infinite_logits_and_rows_with_a_stride() -> None:
    assert int(likeliest(torch.tensor([-torch.inf, 3.0, torch.inf]))) == 2
    logits = torch.randn(4, 6, 97)
    assert torch.equal(likeliest(logits[:, -1]), logits[:, -1].argmax(dim=-1))
