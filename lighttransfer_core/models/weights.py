"""Reading a causal language model's weights with transformers, whole or not at all."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from lighttransfer_core.allocator import memory_of
from lighttransfer_core.errors import ModelError
from lighttransfer_core.machine_code import LINE


def read_weights(folder: Path, **options: Any) -> PreTrainedModel:
    """The model in a local folder, in evaluation mode.

    Parameters
    ----------
    folder
        On this disk.
    options
        More keywords for `from_pretrained`.

    Raises
    ------
    ModelError
        A file is damaged, or tensors are missing or of another shape than the configuration says.
    """
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except SafetensorError as error:
        raise ModelError(f"The weights in {folder} are damaged ({error}): fetch or save them again.") from error
    model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    # transformers only warns of these, and goes on with random numbers in their place.
    wrong = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"{len(wrong)} of the model's tensors are missing from the weights in {folder} or of another shape, such "
            f"as {wrong[0]}: the weights are incomplete, or of another model than the configuration."
        )
    model.eval()
    return model


def lay_out(model: PreTrainedModel) -> None:
    """Copies the weights out of their file into one stretch of memory, each a tensor of its own that begins a line.

    Every decode step reads all of them, one behind the other.
    """
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()]
    places = [0, *accumulate(-(-tensor.nbytes // LINE) * LINE for tensor in tensors)]
    memory = memory_of(places[-1])
    for tensor, place in zip(tensors, places, strict=False):
        own = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=place).view(tensor.shape)
        tensor.data = own.copy_(tensor.data)
