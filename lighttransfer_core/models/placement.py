"""Where a model's weights go and in which precision, decided before any of them is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lighttransfer_core.cost.device import available_bytes
from lighttransfer_core.errors import InvalidInputError, ModelDoesNotFitError

DeviceMap = dict[str, torch.device] | str

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_MARGIN = 1.05
"""Room beside the weights for buffers, activations of a short prompt and the allocator's rounding."""


@dataclass(frozen=True)
class Placement:
    """Where the weights go.

    Attributes
    ----------
    device_map
        For `from_pretrained`: one device for everything, or "auto" over the accelerators in `max_memory`.
    max_memory
        Bytes that each device may take, by index or "cpu"; None with a single device.
    """

    device_map: DeviceMap
    max_memory: dict[int | str, int] | None = None


def choose_device(device: str | torch.device) -> torch.device:
    """The device that a name means; "auto" is the accelerator where there is one, else the CPU.

    Raises
    ------
    InvalidInputError
        There is no such device on this machine.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        return accelerator or torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InvalidInputError(f"device={device!r} is not a device name: use 'auto', 'cpu' or 'cuda:0'.") from error
    present = accelerator is not None and chosen.type == accelerator.type
    if chosen.type != "cpu" and not (present and (chosen.index or 0) < torch.accelerator.device_count()):
        have = f"{torch.accelerator.device_count()} of type {accelerator.type}" if accelerator else "none"
        raise InvalidInputError(f"device={str(device)!r} is not on this machine (accelerators: {have}): use 'auto'.")
    return chosen


def choose_dtype(dtype: str | torch.dtype, checkpoint: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision to load in. "auto" is the checkpoint's on an accelerator.

    On a CPU, "auto" is float32 unless its instructions compute bfloat16 by themselves: without them a prefill in
    bfloat16 takes several times as long.

    Raises
    ------
    InvalidInputError
        The name is not one of the known precisions.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        stored = checkpoint or torch.float32
        fast = device.type != "cpu" or (stored == torch.bfloat16 and _cpu_computes_bfloat16())
        return stored if fast else torch.float32
    if dtype not in _DTYPES:
        raise InvalidInputError(f"dtype={dtype!r} is not known: use 'auto' or one of {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def _cpu_computes_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def estimate_weight_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of the weights in that precision, counted on a model without storage.

    Weights that the checkpoint keeps quantised count with their own bits.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    total = sum(parameter.numel() for parameter in model.parameters())
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    embedding = model.get_output_embeddings()
    packed = linear - (embedding.weight.numel() if embedding is not None else 0)
    bits = _quantised_bits(config)
    if bits is None:
        return int(total * dtype.itemsize)
    return int((total - packed) * dtype.itemsize + packed * bits / 8)


def _quantised_bits(config: PreTrainedConfig) -> float | None:
    """Bits of a quantised linear weight with its scales; None where the weights are in full or of an unknown method."""
    stated = getattr(config, "quantization_config", None)
    if stated is None:
        return None
    settings = stated if isinstance(stated, dict) else stated.to_dict()
    if settings.get("load_in_4bit") or settings.get("quant_method") == "mxfp4":
        return 4.5
    if settings.get("load_in_8bit") or settings.get("quant_method") == "fp8":
        return 8.5
    bits = settings.get("bits")
    return bits + 0.5 if isinstance(bits, int | float) else None


def place(name: str, weight_bytes: int, device: torch.device) -> Placement:
    """Puts the weights on the device, or over all accelerators of the machine where one is too small.

    Nothing is ever put aside on the CPU or the disk: decode would be slow beyond use.

    Raises
    ------
    ModelDoesNotFitError
        With what is needed and what there is.
    """
    needed = int(weight_bytes * _MARGIN)
    free = available_bytes(device)
    if needed <= free:
        return Placement({"": device})
    others = _accelerators(device)
    total = sum(others.values())
    if len(others) > 1 and needed <= total:
        return Placement("auto", {**others, "cpu": 0})
    raise ModelDoesNotFitError(
        f"{name} needs {_gb(needed)} for its weights and {_where(device, free, others)}. {_advice(needed, device)}"
    )


def _accelerators(device: torch.device) -> dict[int | str, int]:
    """Available bytes of each accelerator, by index; empty where the CPU or one certain accelerator was asked for."""
    if device.type == "cpu" or device.index is not None:
        return {}
    return {i: available_bytes(torch.device(device.type, i)) for i in range(torch.accelerator.device_count())}


def _where(device: torch.device, free: int, others: dict[int | str, int]) -> str:
    if len(others) > 1:
        return f"the {len(others)} accelerators have {_gb(sum(others.values()))} free together"
    return f"{device} has {_gb(free)} free"


def _advice(needed: int, device: torch.device) -> str:
    host = available_bytes("cpu")
    if device.type != "cpu" and needed <= host:
        return f"device='cpu' would hold it ({_gb(host)} free); or take a smaller model or precision."
    return "Take a smaller model, a smaller precision, or a machine with more memory."


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB"
