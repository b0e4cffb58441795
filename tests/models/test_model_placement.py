"""Device, precision and fit: decided from numbers, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from lighttransfer_core.errors import InvalidInputError, ModelDoesNotFitError
from lighttransfer_core.models import placement
from lighttransfer_core.models.placement import choose_device, choose_dtype, estimate_weight_bytes, place
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

    return fake


def test_the_estimate_is_what_the_loaded_model_takes(tiny: PreTrainedModel) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        expected = sum(p.nbytes for p in tiny.to(dtype).parameters())
        assert estimate_weight_bytes(tiny.config, dtype) == expected


def test_the_estimate_holds_no_memory() -> None:
    sizes = {"hidden_size": 8192, "intermediate_size": 28_672, "num_attention_heads": 64, "num_key_value_heads": 8}
    config = LlamaConfig(**sizes, num_hidden_layers=80, vocab_size=128_256)
    assert estimate_weight_bytes(config, torch.bfloat16) == 2 * 70_553_706_496


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.5),
        ({"quant_method": "fp8"}, 8.5),
        ({"quant_method": "of another kind"}, 16),
    ],
)
def test_quantised_checkpoints_count_their_own_bits(settings: dict[str, object], bits: float) -> None:
    config = LlamaConfig(**SHARED)
    whole = AutoModelForCausalLM.from_config(config)
    linear = sum(
        m.weight.numel() for n, m in whole.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    )
    rest = sum(p.numel() for p in whole.parameters()) - linear
    config.quantization_config = settings
    assert estimate_weight_bytes(config, torch.bfloat16) == int(rest * 2 + linear * bits / 8)


def test_what_fits_goes_to_the_device(memory: FakeMemory) -> None:
    memory(1000, [])
    assert place("m", 900, CPU).device_map == {"": CPU}
    memory(0, [1000])
    assert place("m", 900, GPU).device_map == {"": GPU}


def test_what_does_not_fit_is_refused_with_the_numbers(memory: FakeMemory) -> None:
    memory(8 * 10**9, [])
    with pytest.raises(ModelDoesNotFitError, match=r"m needs 16\.8 GB for its weights and cpu has 8\.0 GB free"):
        place("m", 16 * 10**9, CPU)


def test_room_on_the_cpu_is_offered_and_never_taken(memory: FakeMemory) -> None:
    memory(64 * 10**9, [8 * 10**9])
    with pytest.raises(ModelDoesNotFitError, match=r"cuda has 8\.0 GB free\. device='cpu' would hold it \(64\.0 GB"):
        place("m", 16 * 10**9, GPU)


def test_several_accelerators_share_what_one_cannot_hold(memory: FakeMemory) -> None:
    memory(0, [10 * 10**9, 9 * 10**9])
    spread = place("m", 16 * 10**9, GPU)
    assert spread.device_map == "auto"
    assert spread.max_memory == {0: 10 * 10**9, 1: 9 * 10**9, "cpu": 0}
    with pytest.raises(ModelDoesNotFitError, match=r"the 2 accelerators have 19\.0 GB free together"):
        place("m", 30 * 10**9, GPU)


def test_one_accelerator_by_number_is_not_spread(memory: FakeMemory) -> None:
    memory(0, [10 * 10**9, 90 * 10**9])
    with pytest.raises(ModelDoesNotFitError, match="cuda:0 has 10"):
        place("m", 16 * 10**9, torch.device("cuda:0"))
    assert place("m", 16 * 10**9, torch.device("cuda:1")).device_map == {"": torch.device("cuda:1")}


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
    with pytest.raises(InvalidInputError, match="'int8' is not known"):
        choose_dtype("int8", None, CPU)
