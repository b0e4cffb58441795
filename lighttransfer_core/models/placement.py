"""Where a model's weights go and in which precision, decided before any of them is loaded."""

from __future__ import annotations

import torch
from accelerate import infer_auto_device_map
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lighttransfer_core.cost.device import available_bytes
from lighttransfer_core.errors import InvalidInputError, ModelDoesNotFitError, UnsupportedModelError

DeviceMap = dict[str, torch.device | int]
"""Device by module name; the empty name is the whole model. What `from_pretrained` takes."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
INT8 = "int8"
"""Not an element type to compute in: linear weights in 8 bits, everything else in bfloat16."""

_MARGIN = 1.05
"""Room beside the weights for buffers, activations of a short prompt and the allocator's rounding."""


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
    if dtype == INT8:
        return torch.bfloat16
    if dtype not in _DTYPES:
        raise InvalidInputError(f"dtype={dtype!r} is not known: use 'auto' or one of {', '.join((*_DTYPES, INT8))}.")
    return _DTYPES[dtype]


def _cpu_computes_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def without_weights(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a configuration, on the meta device: shapes and no storage.

    Raises
    ------
    UnsupportedModelError
        transformers has no causal language model of that type.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except ValueError as error:
        raise UnsupportedModelError(
            f"transformers has no causal language model of type {config.model_type!r}, and code that comes with a "
            "model is never run."
        ) from error
    return model


def estimate_weight_bytes(model: PreTrainedModel) -> int:
    """Bytes that the weights will take, from a model on the meta device.

    Weights that the checkpoint keeps quantised count with their own bits.
    """
    whole = _full_bytes(model)
    bits = _quantised_bits(model.config)
    if bits is None:
        return whole
    head = model.get_output_embeddings()
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return whole - sum(int(weight.nbytes - weight.numel() * bits / 8) for weight in linear)


def _full_bytes(model: PreTrainedModel) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


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


def place(name: str, model: PreTrainedModel, device: torch.device) -> DeviceMap:
    """Puts the model on the device, or over all accelerators of the machine where one is too small.

    Nothing is ever put aside on the CPU or the disk: decode would be slow beyond use.

    Parameters
    ----------
    name
        The model's, for the error.
    model
        On the meta device.

    Raises
    ------
    ModelDoesNotFitError
        With what is needed and what there is.
    """
    needed = int(estimate_weight_bytes(model) * _MARGIN)
    free = available_bytes(device)
    if needed <= free:
        return {"": device}
    accelerators = _accelerators(device)
    if len(accelerators) > 1 and (spread := _spread(model, needed, accelerators)) is not None:
        return spread
    raise ModelDoesNotFitError(
        f"{name} needs {_size(needed)} for its weights and {_where(device, free, accelerators)}. "
        f"{_advice(needed, device)}"
    )


def _spread(model: PreTrainedModel, needed: int, accelerators: dict[int, int]) -> DeviceMap | None:
    """Whole layers over the accelerators, as evenly as their sizes allow; None where they do not fit.

    An even spread leaves room for the KV cache beside every layer.
    """
    packing = needed / _full_bytes(model)
    for unevenness in (1.1, 1.3, 1.6, len(accelerators)):
        share = unevenness * needed / len(accelerators)
        limits = {index: int(min(free, share) / packing) for index, free in accelerators.items()}
        device_map: DeviceMap = infer_auto_device_map(
            model,
            max_memory=limits,
            no_split_module_classes=list(model._no_split_modules or ()),
            offload_buffers=True,
        )
        if all(isinstance(place, int) for place in device_map.values()):
            return device_map
    return None


def _accelerators(device: torch.device) -> dict[int, int]:
    """Available bytes of each accelerator, by index; empty where the CPU or one certain accelerator was asked for."""
    if device.type == "cpu" or device.index is not None:
        return {}
    return {i: available_bytes(torch.device(device.type, i)) for i in range(torch.accelerator.device_count())}


def _where(device: torch.device, free: int, others: dict[int, int]) -> str:
    if len(others) > 1:
        return f"the {len(others)} accelerators have {_size(sum(others.values()))} free together"
    return f"{device} has {_size(free)} free"


def _advice(needed: int, device: torch.device) -> str:
    host = available_bytes("cpu")
    if device.type != "cpu" and needed <= host:
        return f"device='cpu' would hold it ({_size(host)} free); or take a smaller model or precision."
    return "Take a smaller model, a smaller precision, or a machine with more memory."


def _size(nbytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes / 1000:,.1f} kB"
