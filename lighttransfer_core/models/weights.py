"""Reading a causal language model's weights with transformers, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from lighttransfer_core.errors import ModelError


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


def take_from_file(model: PreTrainedModel) -> None:
    """Copies weights that are mapped from their file into memory of their own, one after the other.

    Each decode step reads all of them, and reads them up to a tenth faster from there.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
