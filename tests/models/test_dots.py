from __future__ import annotations

import pytest
import torch

from lighttransfer_core.models import dots as module
from lighttransfer_core.models.dots import dots, several_dots


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1, 24, 12),
        (1, 7, 1),
        (2, 64, 33),
        (3, 5, 17),
        (4, 100, 3),
        (7, 20, 5),
        (8, 1, 40),
        (9, 30, 16),
        (16, 9, 6),
        (17, 12, 9),
        (32, 40, 50),
        (49, 7, 11),
    ],
)
def test_dot_products_equal_float64(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: int, rows: int, inputs: int, outputs: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(module, "_PART_NBYTES", 1)
    given = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = dots(given, weight)
    assert found.dtype == dtype
    close = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), given.double() @ weight.double().t(), atol=10 * close, rtol=close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_products_of_several_weights_are_those_of_each(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, threads: int, rows: int
) -> None:
    """Whichever of them a part of the work ends in."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(module, "_PART_NBYTES", 1)
    given = torch.randn(2, rows, 24).to(dtype)
    weights = [torch.randn(outputs, 24).to(dtype) for outputs in (1, 40, 7, 16)]
    for found, weight in zip(several_dots(given, weights), weights, strict=True):
        assert found.is_contiguous()
        assert torch.equal(found, dots(given, weight))


def test_a_thread_is_woken_for_enough_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(module, "_by_one_thread", lambda *given: calls.append(given[-1]))
    monkeypatch.setattr(module, "_by_several", lambda *given: calls.append(given[-1]))
    for outputs in (10, 1000, 4000):
        dots(torch.zeros(1, 512), torch.zeros(outputs, 512))
    assert calls == [1, 3, 15]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_may_be_of_another_type(dtype: torch.dtype) -> None:
    given = torch.randn(2, 30, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight = torch.arange(-128, 112, dtype=torch.int8).view(8, 30)
    expected = given.double() @ weight.double().t()
    torch.testing.assert_close(module.float32_dots(given, weight).double(), expected, atol=1e-3, rtol=1e-5)
    assert dots(given, weight).dtype == dtype


def test_the_usual_type_does_not_matter() -> None:
    """transformers changes it for all threads while it builds a model."""
    given, weight = torch.ones(1, 5), torch.ones(300, 5)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = dots(given, weight)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, torch.full((1, 300), 5.0))


def test_what_is_read_by_address_lies_plainly() -> None:
    rows, weight = torch.zeros(2, 6), torch.zeros(3, 6)
    assert module.can_multiply(rows, weight)
    assert module.can_multiply(rows, weight.to(torch.int8))
    assert not module.can_multiply(rows, torch.zeros(3, 5))
    assert not module.can_multiply(rows, torch.zeros(6, 3).t())
    assert not module.can_multiply(torch.zeros(2, 12)[:, ::2], weight)
    assert not module.can_multiply(rows, weight.double())
