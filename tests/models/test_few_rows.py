from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import lighttransfer_core as lt
from lighttransfer_core.models import few_rows
from lighttransfer_core.models.few_rows import FewRowsLinear, Product, linear, split, transposed, vector
from tests.conftest import make_tiny, tokens

PRODUCTS = [linear, transposed, vector, split]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def use(module: nn.Module, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this product had been the quickest wherever it can be used."""
    monkeypatch.setattr(
        few_rows,
        "quickest",
        lambda weights: {
            rows: product for rows in range(1, few_rows.MOST_ROWS + 1) if few_rows._can(product, rows, weights[0])
        },
    )
    few_rows.use_few_row_products(module)


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
    for shape in ((24,), (1, 24), (1, 1, 24), (2, 2, 24), (8, 1, 24), (9, 24), (3, 40, 24)):
        given = torch.randn(shape).to(dtype)
        found = layer(given)
        assert found.is_contiguous()
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact(given.double()), **close)


def test_gradients_flow_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(24, 12)
    plain = copy.deepcopy(layer)
    use(layer, transposed, monkeypatch)
    for one in (layer, plain):
        one(torch.ones(1, 24)).sum().backward()
    assert isinstance(layer, FewRowsLinear)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)


def test_a_layer_stays_a_linear_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Linear(24, 12))
    names, seen = list(layer.state_dict()), []
    layer[0].register_forward_hook(lambda *_: seen.append(1))
    use(layer, transposed, monkeypatch)
    assert isinstance(layer[0], nn.Linear)
    assert list(layer.state_dict()) == names
    with torch.no_grad():
        layer(torch.ones(1, 24))
    assert seen == [1]
    assert isinstance(copy.deepcopy(layer)[0], FewRowsLinear)


def test_the_quickest_is_chosen_for_each_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """By times that are made up: the vector product for one row, the transposed one for four and more."""
    seconds = {(vector, 1): 0.5, (split, 1): 0.6, (transposed, 4): 0.5, (transposed, 6): 0.7, (transposed, 8): 0.85}
    monkeypatch.setattr(few_rows, "_time", lambda one, rows, _weights: seconds.get((one, len(rows)), 1.0))
    found = few_rows.quickest([torch.ones(8, 4)])
    assert found == {1: vector, 4: transposed, 5: transposed, 6: transposed, 7: transposed}


def test_what_is_tried_is_every_weight_of_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[torch.Size]] = []
    monkeypatch.setattr(few_rows, "quickest", lambda weights: seen.append([one.shape for one in weights]) or {})
    few_rows.use_few_row_products(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)))
    assert seen == [[torch.Size([8, 4])] * 2, [torch.Size([4, 8])]]


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
    use(llama, transposed, monkeypatch)
    torch.testing.assert_close(llama.generate(tokens(20, batch=3), max_new_tokens=6, do_sample=False), expected)
