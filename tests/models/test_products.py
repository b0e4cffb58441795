from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.models import products
from lighttransfer_core.models.dots import dots, several_dots
from lighttransfer_core.models.products import (
    Product,
    QuickLinear,
    can,
    chosen,
    library,
    library_alone,
    onednn,
    use_quickest_products,
)
from tests.conftest import make_tiny, tokens

PRODUCTS = [library, library_alone, onednn, dots]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def use(module: nn.Module, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this product had been the quickest wherever it can be used."""

    def quickest(weights: Sequence[Tensor]) -> dict[int, Product]:
        rows = torch.zeros(256, weights[0].shape[1], dtype=weights[0].dtype)
        return {count: product for count in range(1, 257) if can(product, rows[:count], weights[0])}

    monkeypatch.setattr(products, "quickest", quickest)
    use_quickest_products(module)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_every_product_is_the_same_sum(
    product: Product, dtype: torch.dtype, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 12, bias=bias, dtype=dtype)
    exact = copy.deepcopy(layer).double()
    use(layer, product, monkeypatch)
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype in (torch.float32, torch.float64) else {"atol": 0.02, "rtol": 0.02}
    for shape in ((24,), (1, 24), (1, 1, 24), (2, 2, 24), (8, 1, 24), (9, 24), (3, 40, 24), (3, 100, 24)):
        given = torch.randn(shape).to(dtype)
        found = layer(given)
        assert found.is_contiguous()
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact(given.double()), **close)


def test_gradients_flow_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(24, 12)
    plain = copy.deepcopy(layer)
    use(layer, dots, monkeypatch)
    for one in (layer, plain):
        one(torch.ones(1, 24)).sum().backward()
    assert isinstance(layer, QuickLinear)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


def test_a_layer_stays_a_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Linear(24, 12))
    names, seen = list(layer.state_dict()), []
    layer[0].register_forward_hook(lambda *_: seen.append(1))
    use(layer, dots, monkeypatch)
    assert isinstance(layer[0], nn.Linear)
    assert list(layer.state_dict()) == names
    with torch.no_grad():
        layer(torch.ones(1, 24))
    assert seen == [1]
    assert isinstance(copy.deepcopy(layer)[0], QuickLinear)


@torch.no_grad()
def test_a_layer_that_is_pruned_multiplies_by_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn.Linear(24, 12), torch.randn(1, 24)
    use(layer, dots, monkeypatch)
    for name in ("weight", "bias"):
        prune.random_unstructured(layer, name, 0.5)
    torch.testing.assert_close(layer(given), given @ layer.weight.t() + layer.bias)


def test_the_quickest_is_chosen_for_each_number_of_rows() -> None:
    """By times that are made up: dot products for one row, one thread for four and more."""
    times = {rows: {library: 1.0, library_alone: 1.0} for rows in (1, 2, 4, 8, 16)}
    times[1] |= {dots: 0.5, library_alone: 0.6}
    times[4][library_alone], times[8][library_alone] = 0.5, 0.95
    assert chosen(times) == {1: dots, 4: library_alone, 5: library_alone, 6: library_alone, 7: library_alone}


@torch.no_grad()
def test_more_rows_than_are_tried_are_multiplied_like_the_most() -> None:
    seen: list[int] = []

    def seeing(rows: Tensor, weight: Tensor) -> Tensor:
        seen.append(len(rows))
        return library(rows, weight)

    layer = nn.Linear(24, 12)
    use_quickest_products(layer)
    assert isinstance(layer, QuickLinear)
    layer.products = {products.MANY_ROWS: seeing}
    layer(torch.ones(300, 24))
    assert seen == [300]


@pytest.mark.parametrize("product", [dots, onednn])
@torch.no_grad()
def test_a_weight_that_lies_otherwise_is_the_librarys(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another type, transposed, or on another device than the one that was tried."""
    layer, given = nn.Linear(24, 12, bias=False), torch.randn(3, 24)
    use(layer, product, monkeypatch)
    layer.weight = nn.Parameter(layer.weight.t().contiguous().t())
    torch.testing.assert_close(layer(given), given @ layer.weight.t())
    double = copy.deepcopy(layer).double()
    torch.testing.assert_close(double(given.double()), given.double() @ double.weight.t())
    assert copy.deepcopy(layer).to("meta")(given.to("meta")).shape == (3, 12)
    layer.weight = nn.Parameter(torch.ones(12, 20))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        layer(given)


def test_a_product_for_few_rows_is_not_used_for_more() -> None:
    times = {63: {library: 1.0, dots: 0.5, onednn: 0.6}, 200: {library: 1.0, onednn: 0.95}}
    assert chosen(times) == {63: dots, 64: dots, **dict.fromkeys(range(65, 200), onednn)}


def test_what_is_tried_is_every_weight_of_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[torch.Size]] = []
    monkeypatch.setattr(products, "quickest", lambda weights: seen.append([one.shape for one in weights]) or {})
    use_quickest_products(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)))
    assert seen == [[torch.Size([8, 4])] * 2, [torch.Size([4, 8])]]


def test_the_real_trial_finds_a_product_for_every_number_of_rows() -> None:
    weights = [torch.randn(32, 16) for _ in range(2)]
    found = products.quickest(weights)
    assert set(found) <= set(range(1, 257))
    for rows in (1, 2, 7, 8, 31, 256):
        given = torch.randn(rows, 16)
        torch.testing.assert_close(found.get(rows, library)(given, weights[0]), given @ weights[0].t())


class Block(nn.Module):
    """Three layers that are given the same."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(24, 12), nn.Linear(24, 6, bias=False), nn.Linear(24, 6)

    def forward(self, given: Tensor) -> list[Tensor]:
        return [self.q_proj(given), self.k_proj(given), self.v_proj(given)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many weights each product of several had."""
    calls: list[int] = []

    def counting(rows: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        calls.append(len(weights))
        return several_dots(rows, weights)

    monkeypatch.setattr(products, "several_dots", counting)
    return calls


@pytest.mark.parametrize("shape", [(1, 1, 24), (24,), (2, 4, 24), (64, 24)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_layers_that_are_given_the_same_multiply_at_once(
    shape: tuple[int, ...],
    mode: Callable[[], AbstractContextManager[None]],
    counted: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = Block()
    plain = copy.deepcopy(block)
    use(block, dots, monkeypatch)
    with mode():
        given = torch.randn(shape)
        for _ in range(2):
            for found, expected in zip(block(given), plain(given), strict=True):
                assert found.is_contiguous()
                torch.testing.assert_close(found, expected)
        assert counted == [3, 3]
        assert not getattr(given, products._READY)[1], "what was taken is not held any longer"
        assert copy.deepcopy(block)(given)[1].shape[-1] == 6


@torch.no_grad()
def test_outputs_that_are_ready_are_those_of_the_tensor_as_it_is(
    counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block()
    plain = copy.deepcopy(block)
    use(block, dots, monkeypatch)
    given = torch.randn(1, 24)
    block.q_proj(given)
    given.mul_(2)
    torch.testing.assert_close(block.v_proj(given), plain.v_proj(given))
    torch.testing.assert_close(block.v_proj(given.clone()), plain.v_proj(given))
    torch.testing.assert_close(block.k_proj(given.requires_grad_()), plain.k_proj(given))
    assert counted == [3, 3, 3]


@torch.no_grad()
def test_only_layers_that_multiply_alike_do_so_at_once(counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block()
    use(block, dots, monkeypatch)
    assert isinstance(block.k_proj, QuickLinear)
    block.k_proj.products = dict.fromkeys(range(1, 257), library)
    block.v_proj.weight = nn.Parameter(block.v_proj.weight.t().contiguous().t())
    plain = copy.deepcopy(block)
    block(torch.randn(1, 24))
    assert counted == [1]
    block.k_proj.products = block.q_proj.products
    block.v_proj.weight = nn.Parameter(block.v_proj.weight.contiguous().to(torch.bfloat16))
    given = torch.randn(1, 24)
    torch.testing.assert_close([block.q_proj(given), block.k_proj(given)], [plain.q_proj(given), plain.k_proj(given)])
    assert counted == [1, 2, 1]


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_model_decodes_the_same(product: Product, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also several rows at once, and through attention kernels that would misread a transposed view."""
    model, twin = make_tiny(architecture), make_tiny(architecture)
    use(twin, product, monkeypatch)
    prefills = [lt.run_prefill(one, tokens(50)) for one in (model, twin)]
    plan = lt.ConversionPlan(prefills[0].spec.convertible_layers[:1], lt.Window(3, 8))
    for one, other in zip(*(lt.decode(prefill, plan, 12) for prefill in prefills), strict=True):
        assert one.token_id == other.token_id
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_generate_takes_batches_of_few_rows(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = llama.generate(tokens(20, batch=3), max_new_tokens=6, do_sample=False)
    use(llama, dots, monkeypatch)
    torch.testing.assert_close(llama.generate(tokens(20, batch=3), max_new_tokens=6, do_sample=False), expected)
