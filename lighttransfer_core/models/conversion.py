"""From a GGUF file to a folder of safetensors and tokenizer, checked against the file it came from."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import GgufConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lighttransfer_core.errors import ModelError
from lighttransfer_core.models.placement import DeviceMap
from lighttransfer_core.models.pretokenizer import mend_pretokenizer
from lighttransfer_core.models.progress import Progress
from lighttransfer_core.models.weights import read_weights

_PROBE = "The year 2024 had   366 days, not x² or ½.\n\tdef area(r): return 3.14159 * r ** 2  # naïve, 面積\n"


def read_gguf_config(path: Path) -> PreTrainedConfig:
    """The configuration that a GGUF file states."""
    config: PreTrainedConfig = transformers.AutoConfig.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
    )
    return config


def read_gguf(
    path: Path, config: PreTrainedConfig, dtype: torch.dtype, device_map: DeviceMap
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a GGUF file, its weights dequantised to `dtype`."""
    # The class is named, and the configuration given, because the automatic choice would parse the file again for each.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    mend_pretokenizer(tokenizer, path)
    model = read_weights(
        path.parent,
        gguf_file=path.name,
        config=config,
        dtype=dtype,
        device_map=device_map,
        quantization_config=GgufConfig(dequantize=True),
    )
    return _as_ordinary_model(model), tokenizer


def convert_gguf(path: Path, folder: Path, progress: Progress) -> None:
    """Writes the model of the GGUF file into the folder, in float32, and checks that it reads back the same.

    Raises
    ------
    ModelError
        The reloaded model gives other logits or token ids than the GGUF file.
    """
    progress("Reading and dequantising the GGUF file (half a minute)", 0.1)
    model, tokenizer = read_gguf(path, read_gguf_config(path), torch.float32, {"": torch.device("cpu")})
    tokenizer.model_max_length = model.config.max_position_embeddings
    progress("Writing safetensors and tokenizer", 0.8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    progress("Checking what was written", 0.9)
    _check_equal(folder, model, tokenizer)


def _as_ordinary_model(model: PreTrainedModel) -> PreTrainedModel:
    """Removes the marks of quantisation: the weights no longer are, but saving refuses a model that bears them."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.is_quantized = False  # type: ignore[assignment]
    return model


@torch.no_grad()
def _check_equal(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    reread = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(_PROBE, return_tensors="pt").input_ids
    if reread(_PROBE).input_ids != ids[0].tolist():
        raise ModelError(f"The tokenizer written to {folder} gives other token ids than the GGUF file's.")
    reloaded = read_weights(folder, dtype=model.dtype, use_safetensors=True)
    if not torch.equal(reloaded(ids).logits, model(ids).logits):
        raise ModelError(f"The weights written to {folder} give other logits than the GGUF file's.")
