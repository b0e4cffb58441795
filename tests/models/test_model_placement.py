"""Device, precision and fit: decided from numbers, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel, ViTConfig

from lighttransfer_core.errors import InvalidInputError, ModelDoesNotFitError, UnsupportedModelError
from lighttransfer_core.models import placement
from lighttransfer_core.models.placement import (
    choose_device,
    choose_dtype,
    estimate_weight_bytes,
    place,
    without_weights,
)
from tests.conftest import SHARED

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FakeMemory = Callable[[int, list[int]], None]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> FakeMemory:
    """Fakes the free bytes of the CPU and of each accelerator."""

    def fake(host: int, accelerators: list[int]) -> None:
        def available(device: torch.device | str) -> int:
            chosen = torch.device(device)
            return host if chosen.type == "cpu" else accelerators[chosen.index or 0]

        kind = torch.device("cuda") if accelerators else None
        monkeypatch.setattr(placement, "available_bytes", available)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: kind)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: len(accelerators))
        # accelerate would strike out the accelerators that this machine does not have.
        monkeypatch.setattr("accelerate.utils.modeling.get_max_memory", lambda limits: {**limits, "cpu": 0})

    return fake


def test_the_estimate_is_what_the_loaded_model_takes(tiny: PreTrainedModel) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        empty = without_weights(tiny.config, dtype)
        assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
        assert estimate_weight_bytes(empty) == sum(p.nbytes for p in tiny.to(dtype).parameters())


def test_a_model_of_any_size_is_estimated() -> None:
    sizes = {"hidden_size": 8192, "intermediate_size": 28_672, "num_attention_heads": 64, "num_key_value_heads": 8}
    config = LlamaConfig(**sizes, num_hidden_layers=80, vocab_size=128_256)
    assert estimate_weight_bytes(without_weights(config, torch.bfloat16)) == 2 * 70_553_706_496


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.5),
        ({"quant_method": "mxfp4"}, 4.5),
        ({"quant_method": "fp8"}, 8.5),
        ({"quant_method": "of another kind"}, 16),
    ],
)
def test_quantised_checkpoints_count_their_own_bits(settings: dict[str, object], bits: float) -> None:
    model = without_weights(LlamaConfig(**SHARED), torch.bfloat16)
    per_layer = 2 * 48 * 48 + 2 * 16 * 48 + 3 * 48 * 64
    total = sum(parameter.numel() for parameter in model.parameters())
    model.config.quantization_config = settings
    assert estimate_weight_bytes(model) == (total - 4 * per_layer) * 2 + 4 * per_layer * bits / 8


def test_a_type_that_is_no_language_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no causal language model of type 'vit'"):
        without_weights(ViTConfig(), torch.float32)


@pytest.fixture
def model() -> PreTrainedModel:
    """Four layers of 62 kB each and an embedding and a head of 19 kB each, without storage."""
    return without_weights(LlamaConfig(**SHARED), torch.float32)


def test_what_fits_goes_to_the_device(memory: FakeMemory, model: PreTrainedModel) -> None:
    memory(300_000, [])
    assert place("m", model, CPU) == {"": CPU}
    memory(0, [300_000])
    assert place("m", model, GPU) == {"": GPU}


def test_what_does_not_fit_is_refused_with_the_numbers(memory: FakeMemory) -> None:
    model = without_weights(LlamaConfig(), torch.bfloat16)
    memory(8 * 10**9, [])
    with pytest.raises(ModelDoesNotFitError, match=r"m needs 14\.2 GB for its weights and cpu has 8\.0 GB free"):
        place("m", model, CPU)


def test_room_on_the_cpu_is_offered_and_never_taken(memory: FakeMemory) -> None:
    model = without_weights(LlamaConfig(), torch.bfloat16)
    memory(64 * 10**9, [8 * 10**9])
    with pytest.raises(ModelDoesNotFitError, match=r"cuda has 8\.0 GB free\. device='cpu' would hold it \(64\.0 GB"):
        place("m", model, GPU)


@pytest.mark.parametrize("sizes", [[230_000, 230_000], [280_000, 190_000], [220_000, 220_000, 220_000]])
def test_several_accelerators_share_what_one_cannot_hold(
    memory: FakeMemory, model: PreTrainedModel, sizes: list[int]
) -> None:
    memory(10**9, sizes)
    device_map = place("m", model, GPU)
    held = dict.fromkeys(range(len(sizes)), 0)
    for name, parameter in model.named_parameters():
        (where,) = {place for module, place in device_map.items() if name.startswith(f"{module}.")}
        held[int(str(where))] += parameter.nbytes
    assert sum(held.values()) == estimate_weight_bytes(model)
    assert all(0 < held[index] <= size for index, size in enumerate(sizes))
    layers = {int(module.split(".")[2]) for module in device_map if module.startswith("model.layers.")}
    assert layers == set(range(4))


def test_what_the_accelerators_cannot_hold_together_is_refused(memory: FakeMemory, model: PreTrainedModel) -> None:
    memory(0, [90_000, 90_000])
    with pytest.raises(ModelDoesNotFitError, match=r"the 2 accelerators have 180\.0 kB free together"):
        place("m", model, GPU)
    # Enough in sum, but no layer fits beside another.
    memory(0, [50_000] * 7)
    with pytest.raises(ModelDoesNotFitError, match="the 7 accelerators"):
        place("m", model, GPU)


def test_one_accelerator_by_number_is_not_spread(memory: FakeMemory, model: PreTrainedModel) -> None:
    memory(0, [200_000, 900_000])
    with pytest.raises(ModelDoesNotFitError, match="cuda:0 has 200"):
        place("m", model, torch.device("cuda:0"))
    assert place("m", model, torch.device("cuda:1")) == {"": torch.device("cuda:1")}


def test_auto_is_the_accelerator_or_the_cpu(memory: FakeMemory) -> None:
    memory(0, [])
    assert choose_device("auto") == CPU
    memory(0, [1, 1])
    assert choose_device("auto") == GPU
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device(torch.device("cpu")) == CPU


@pytest.mark.parametrize("device", ["cuda:2", "mps", "meta"])
def test_a_device_that_is_not_there_is_refused(memory: FakeMemory, device: str) -> None:
    memory(0, [1, 1])
    with pytest.raises(InvalidInputError, match=r"not on this machine \(accelerators: 2 of type cuda\)"):
        choose_device(device)
    memory(0, [])
    with pytest.raises(InvalidInputError, match="accelerators: none"):
        choose_device(device)


def test_a_device_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not a device name"):
        choose_device("gpu")


@pytest.mark.parametrize("native", [{"avx512_bf16": True}, {"amx_bf16": True}, {}])
def test_auto_precision(monkeypatch: pytest.MonkeyPatch, native: dict[str, bool]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: native)
    on_cpu = torch.bfloat16 if native else torch.float32
    assert choose_dtype("auto", torch.bfloat16, CPU) == on_cpu
    assert choose_dtype("auto", torch.float16, CPU) == torch.float32
    assert choose_dtype("auto", None, CPU) == torch.float32
    assert choose_dtype("auto", torch.bfloat16, GPU) == torch.bfloat16
    assert choose_dtype("auto", torch.float16, GPU) == torch.float16


def test_precision_by_name() -> None:
    assert choose_dtype("bfloat16", torch.float32, CPU) == torch.bfloat16
    assert choose_dtype(torch.float64, None, CPU) == torch.float64
    assert choose_dtype("int8", torch.float32, CPU) == torch.bfloat16, "what is not a linear weight"
    with pytest.raises(InvalidInputError, match="'int4' is not known"):
        choose_dtype("int4", None, CPU)
