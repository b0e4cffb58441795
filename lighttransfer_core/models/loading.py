"""Loading a model: safetensors or GGUF only, no remote code, and only what fits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lighttransfer_core.allocator import keep_freed_memory, return_freed_memory
from lighttransfer_core.attention import check_supported, use_lighttransfer_attention
from lighttransfer_core.errors import InvalidInputError, ModelError, UnsupportedModelError
from lighttransfer_core.models import feed_forward, hub, loops, norms, rotations
from lighttransfer_core.models.conversion import read_gguf, read_gguf_config
from lighttransfer_core.models.embedded import GGUF_SHA256, prepare_embedded
from lighttransfer_core.models.int8 import use_int8_weights
from lighttransfer_core.models.placement import INT8, DeviceMap, choose_device, choose_dtype, place, without_weights
from lighttransfer_core.models.pretokenizer import is_known_pretokenizer, pretokenizer_name
from lighttransfer_core.models.products import use_quickest_products
from lighttransfer_core.models.progress import Progress, no_progress, part_of
from lighttransfer_core.models.sources import Source, folder_revision, gguf_revision, resolve
from lighttransfer_core.models.spec import check_config, describe
from lighttransfer_core.models.weights import lay_out, read_weights
from lighttransfer_core.types import ModelSpec

_INT8_NOTE = "Linear weights rounded to 8 bits: quality numbers are those of the rounded model."

# transformers replaces functions of torch while it builds a model, and two threads would restore each other's.
_CONSTRUCTION = threading.Lock()


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use: in evaluation mode, with our attention function set, and with its facts.

    `tokenizer` is None for a local folder that has none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    spec: ModelSpec


@dataclass(frozen=True)
class _Checkpoint:
    """Files on this disk: a folder, or the GGUF file in it. `revision` identifies their content."""

    folder: Path
    revision: str
    gguf_file: str | None = None


def load_model(
    name_or_path: str | Path = "smollm2",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Loads a model and sets our attention on it, which without a hybrid cache is plain attention.

    Only safetensors and GGUF files are read, and no code of the model's own is run. Whether the weights fit is
    decided before any of them is loaded or downloaded.

    Parameters
    ----------
    name_or_path
        A name of the catalogue, a hub id, a local folder, or the path of a GGUF file.
    device
        "auto" for the machine's accelerator, or all of them where one is too small, or the CPU where there is none;
        or a torch device.
    dtype
        "auto" for the checkpoint's precision, which on a CPU is float32 unless the CPU computes bfloat16 by itself;
        or "float32", "bfloat16", "float16", "float64"; or "int8" for linear weights in 8 bits and everything else in
        bfloat16.
    revision
        Branch, tag or commit of a hub model.
    progress
        Told what is being done and how far it is; may raise to break off.

    Raises
    ------
    ModelNotFoundError
        No such model, or it cannot be reached.
    ModelDoesNotFitError
        The weights exceed the memory at hand.
    UnsupportedModelError
        The model computes attention in a way that we would get wrong, or offers no safetensors.
    """
    report = progress or no_progress
    source = resolve(name_or_path)
    target = choose_device(device)
    checkpoint = _locate(source, revision, part_of(report, 0.0, 0.1))
    config = _read_config(checkpoint)
    check_config(config)
    precision = choose_dtype(dtype, _stored_dtype(config), target)
    with _CONSTRUCTION:
        device_map = place(source.name, without_weights(config, precision), target)
    if source.kind == "hub":
        hub.fetch_weights(source.location, checkpoint.revision, part_of(report, 0.1, 0.7))
    report(f"Loading the weights of {source.name}", 0.7)
    with _CONSTRUCTION:
        model, tokenizer = _load(checkpoint, config, precision, device_map)
    notes = _notes(source, checkpoint)
    if dtype == INT8:
        use_int8_weights(model)
        notes = f"{notes} {_INT8_NOTE}".strip()
    report("Checking the model's attention", 0.95)
    use_lighttransfer_attention(model)
    check_supported(model)
    if target.type == "cpu":
        lay_out(model)
        return_freed_memory()
        keep_freed_memory()
        loops.make_ready(precision, torch.int8 if dtype == INT8 else None)
    use_quickest_products(model)
    norms.use_quick_norms(model)
    rotations.use_quick_rotations(model)
    feed_forward.use_stretches(model)
    spec = describe(model, source.name, checkpoint.revision, tokenizer, notes)
    report(f"{source.name} is ready", 1.0)
    return LoadedModel(model, tokenizer, spec)


def fetch_model(
    name_or_path: str | Path = "smollm2", revision: str | None = None, progress: Progress | None = None
) -> Path:
    """Brings a model's files onto this disk without loading them, and returns where they are."""
    report = progress or no_progress
    source = resolve(name_or_path)
    checkpoint = _locate(source, revision, part_of(report, 0.0, 0.1))
    if source.kind == "hub":
        hub.fetch_weights(source.location, checkpoint.revision, part_of(report, 0.1, 1.0))
    report(f"{source.name} is on this disk", 1.0)
    return checkpoint.folder / (checkpoint.gguf_file or "")


def _locate(source: Source, revision: str | None, progress: Progress) -> _Checkpoint:
    if revision is not None and source.kind != "hub":
        raise InvalidInputError(f"revision={revision!r} is for models of the hub; {source.name} has one version only.")
    if source.kind == "embedded":
        return _Checkpoint(prepare_embedded(progress), f"gguf-{GGUF_SHA256}")
    if source.kind == "hub":
        folder = hub.fetch_config(source.location, revision, progress)
        return _Checkpoint(folder, folder.name)
    path = Path(source.location)
    if source.kind == "gguf":
        return _Checkpoint(path.parent, gguf_revision(path), path.name)
    return _Checkpoint(path, folder_revision(path))


def _read_config(checkpoint: _Checkpoint) -> PreTrainedConfig:
    try:
        if checkpoint.gguf_file is not None:
            return read_gguf_config(checkpoint.folder / checkpoint.gguf_file)
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:
        raise UnsupportedModelError(
            f"{checkpoint.gguf_file or checkpoint.folder.name} is of a type that transformers does not know by itself, "
            f"and code that comes with a model is never run: {error}"
        ) from error
    except OSError as error:
        raise ModelError(f"The configuration in {checkpoint.folder} is damaged: fetch or save it again.") from error
    return config


def _stored_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else None


def _load(
    checkpoint: _Checkpoint, config: PreTrainedConfig, dtype: torch.dtype, device_map: DeviceMap
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    if checkpoint.gguf_file is not None:
        return read_gguf(checkpoint.folder / checkpoint.gguf_file, config, dtype, device_map)
    model = read_weights(checkpoint.folder, dtype=dtype, device_map=device_map, use_safetensors=True)
    return model, _load_tokenizer(checkpoint.folder)


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")):
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library that reads tokenizer.json has no type of its own for this
        raise ModelError(f"The tokenizer in {folder} cannot be read ({error}): fetch or save it again.") from error
    return tokenizer


def _notes(source: Source, checkpoint: _Checkpoint) -> str:
    if checkpoint.gguf_file is None:
        return source.notes
    notes = "Weights dequantised from a GGUF file: quality numbers are those of the quantised model."
    pretokenizer = pretokenizer_name(checkpoint.folder / checkpoint.gguf_file)
    if not is_known_pretokenizer(pretokenizer):
        notes += f" Its pre-tokenizer {pretokenizer!r} is unknown to transformers: some token ids may differ."
    return notes
