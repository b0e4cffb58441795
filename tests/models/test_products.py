from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.models import products
from lighttransfer_core.models.dots import dots
from lighttransfer_core.models.products import (
    Packed,
    Product,
    QuickLinear,
    can,
    can_pack,
    chosen,
    drop_copies,
    library,
    library_alone,
    packed,
    packed_alone,
    packed_nbytes,
    use_quickest_products,
)
from tests.conftest import make_tiny, tokens

PRODUCTS = [library, library_alone, dots, packed, packed_alone]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ROOM = 1 << 30


def use(module: nn.Module, product: Product, monkeypatch: pytest.MonkeyPatch, room_nbytes: int = ROOM) -> None:
    """As if this product had been the quickest wherever it can be used."""

    def quickest(weights: Sequence[Tensor], layouts: Sequence[Tensor]) -> dict[int, Product]:
        possible = product not in (packed, packed_alone) or len(layouts) == len(weights)
        rows = torch.zeros(256, weights[0].shape[1], dtype=weights[0].dtype)
        return {count: product for count in range(1, 257) if possible and can(product, rows[:count], weights[0])}

    monkeypatch.setattr(products, "quickest", quickest)
    use_quickest_products(module, room_nbytes)


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


def test_the_quickest_is_chosen_for_each_number_of_rows() -> None:
    """By times that are made up: dot products for one row, one thread for four and more."""
    times = {rows: {library: 1.0, library_alone: 1.0} for rows in (1, 2, 4, 8, 16)}
    times[1] |= {dots: 0.5, library_alone: 0.6}
    times[4][library_alone], times[8][library_alone] = 0.5, 0.95
    assert chosen(times) == {1: dots, 4: library_alone, 5: library_alone, 6: library_alone, 7: library_alone}


def test_copies_are_used_where_they_pay_over_all_numbers_of_rows() -> None:
    times = {1: {library: 1.0, dots: 0.5, packed: 0.8}}
    times |= {8: {library: 1.0, packed: 0.5}, 16: {library: 1.0, packed: 0.97}}
    found = chosen(times)
    assert all(found[rows] is dots for rows in range(1, 8))
    assert all(found[rows] is packed for rows in range(8, 257))
    times[8][packed] = 0.9
    assert chosen(times) == dict.fromkeys(range(1, 8), dots)


@torch.no_grad()
def test_more_rows_than_are_tried_are_multiplied_like_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def seeing(rows: Tensor, weight: Tensor) -> Tensor:
        seen.append(len(rows))
        return packed(rows, weight)

    layer = nn.Linear(24, 12)
    use(layer, packed, monkeypatch)
    monkeypatch.setattr(products, "_OF_COPIES", (seeing,))
    layer.products = dict.fromkeys(layer.products, seeing)
    layer(torch.ones(300, 24))
    assert seen == [300]


def test_a_product_for_few_rows_is_not_used_for_more() -> None:
    times = {8: {library: 1.0, dots: 0.5}, 32: {library: 1.0, library_alone: 0.5}}
    assert chosen(times) == {8: dots, 32: library_alone}


def test_what_is_tried_is_every_weight_of_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[torch.Size]] = []
    monkeypatch.setattr(products, "quickest", lambda weights, _: seen.append([one.shape for one in weights]) or {})
    use_quickest_products(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)), ROOM)
    assert seen == [[torch.Size([8, 4])] * 2, [torch.Size([4, 8])]]


def test_the_real_trial_finds_a_product_for_every_number_of_rows() -> None:
    weights = [torch.randn(32, 16) for _ in range(2)]
    found = products.quickest(weights, [packed_of(weight) for weight in weights])
    assert set(found) <= set(range(1, 257))
    for rows in (1, 2, 7, 8, 31, 256):
        product = found.get(rows, library)
        given = torch.randn(rows, 16)
        weight = packed_of(weights[0]) if product in (packed, packed_alone) else weights[0]
        torch.testing.assert_close(product(given, weight).view(rows, 32), given @ weights[0].t())


def test_copies_are_counted_and_only_kept_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16))
    one_shape = 2 * layers[0].weight.nbytes
    use(layers, packed, monkeypatch, room_nbytes=one_shape)
    assert packed_nbytes(layers) == one_shape
    assert packed not in layers[2].products.values()


def test_copies_that_no_product_uses_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Linear(16, 32))
    use(layer, dots, monkeypatch)
    assert packed_nbytes(layer) == 0


@torch.no_grad()
def test_copies_can_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn.Linear(24, 12), torch.randn(3, 24)
    use(layer, packed, monkeypatch)
    before = layer(given)
    drop_copies(layer)
    assert packed_nbytes(layer) == 0
    torch.testing.assert_close(layer(given), before)


@torch.no_grad()
def test_a_copy_is_not_used_once_its_weight_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn.Linear(24, 12), torch.randn(3, 24)
    use(layer, packed, monkeypatch)
    before = layer(given)
    layer.weight.mul_(2)
    torch.testing.assert_close(layer(given) - layer.bias, 2 * (before - layer.bias))
    layer.load_state_dict({"weight": torch.ones(12, 24), "bias": torch.zeros(12)})
    torch.testing.assert_close(layer(given), given.sum(dim=1, keepdim=True).expand(3, 12))
    torch.testing.assert_close(layer.double()(given.double()), given.double().sum(dim=1, keepdim=True).expand(3, 12))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@torch.no_grad()
def test_a_layer_with_a_copy_can_be_copied_and_pickled(again, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn.Linear(24, 12), torch.randn(3, 24)
    use(layer, packed, monkeypatch)
    twin = again(layer)
    torch.testing.assert_close(twin(given), layer(given))
    assert packed_nbytes(twin) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_types_without_a_layout_are_not_packed(dtype: torch.dtype) -> None:
    assert not can_pack(torch.zeros(4, 4, dtype=dtype))
    assert can_pack(torch.zeros(4, 4))


def test_weights_of_inference_mode_are_not_packed() -> None:
    """Nothing would tell that they have changed."""
    with torch.inference_mode():
        assert not can_pack(torch.zeros(4, 4))


def packed_of(weight: Tensor) -> Tensor:
    layout = Packed.of(weight).weight
    assert layout is not None
    return layout


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
