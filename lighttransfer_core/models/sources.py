"""What a model's name means: the embedded model, the hub, a local folder, or a GGUF file."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lighttransfer_core.errors import ModelNotFoundError, UnsupportedModelError
from lighttransfer_core.models.catalogue import catalogue, find
from lighttransfer_core.models.hub import looks_like_hub_id

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Source:
    """Where to load from.

    `location` is a hub id for the kind "hub", a path for "folder" and "gguf", and nothing for "embedded".
    """

    kind: Literal["embedded", "hub", "folder", "gguf"]
    name: str
    location: str = ""
    notes: str = ""


def resolve(name_or_path: str | Path) -> Source:
    """What a name or path means.

    Raises
    ------
    ModelNotFoundError
        It is neither in the catalogue, nor on this disk, nor can it be a hub id.
    UnsupportedModelError
        It is a file that can run code when it is read.
    """
    name = str(name_or_path)
    if (entry := find(name)) is not None:
        return Source("hub" if entry.hub_id else "embedded", entry.name, entry.hub_id or "", entry.notes)
    if not name.strip():
        raise ModelNotFoundError(f"No model was named.{_suggestion(name)}")
    path = Path(name).expanduser()
    if path.suffix.lower() in _PICKLES and not path.is_dir():
        raise UnsupportedModelError(
            f"{name} is a pickle, which can run code when it is read: give a folder with safetensors, or a GGUF file."
        )
    if path.is_dir():
        _check_folder(path)
        return Source("folder", path.resolve().name, str(path.resolve()))
    if path.suffix.lower() == ".gguf" and path.is_file():
        _check_gguf(path)
        return Source("gguf", path.stem, str(path.resolve()))
    if path.suffix.lower() == ".gguf" or not looks_like_hub_id(name):
        raise ModelNotFoundError(f"There is no file or folder {name}.{_suggestion(name)}")
    if "/" not in name:
        raise ModelNotFoundError(
            f"{name!r} is neither in the catalogue nor a folder here; a hub id has the form owner/model."
            f"{_suggestion(name)}"
        )
    return Source("hub", name, name)


def folder_revision(folder: Path) -> str:
    """What identifies the weights of a local folder: a hash over its configuration and its files' sizes and times."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer*"), *folder.glob("*.jinja")]):
        facts = file.stat()
        digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return f"folder-{digest.hexdigest()}"


def gguf_revision(file: Path) -> str:
    """What identifies a GGUF file: the hash of its content."""
    with file.open("rb") as opened:
        return f"gguf-{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"{folder} has no config.json: give a folder written by save_pretrained.")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise UnsupportedModelError(
            f"{folder} has its weights in {', '.join(pickles)}, which can run code when read: save them as "
            "safetensors, with model.save_pretrained(...)."
        )
    raise ModelNotFoundError(f"{folder} has no *.safetensors weights.")


def _check_gguf(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"GGUF":
        raise UnsupportedModelError(f"{file} does not begin as a GGUF file does: it is of another format, or damaged.")


def _suggestion(name: str) -> str:
    names = [entry.name for entry in catalogue()]
    close = difflib.get_close_matches(name.lower(), names, n=3)
    return f" Did you mean {' or '.join(close)}?" if close else f" The catalogue has: {', '.join(names)}."
