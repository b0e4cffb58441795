"""What a name means, what is refused by name, and what identifies the files found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lighttransfer_core.errors import ModelNotFoundError, UnsupportedModelError
from lighttransfer_core.models.sources import folder_revision, gguf_revision, resolve


def test_the_embedded_model_and_the_catalogue() -> None:
    assert resolve("smollm2").kind == "embedded"
    assert "4 bits" in resolve("smollm2").notes
    by_name, by_id = resolve("qwen3-4b"), resolve("Qwen/Qwen3-4B")
    assert by_name == by_id
    assert (by_name.kind, by_name.location) == ("hub", "Qwen/Qwen3-4B")


def test_any_hub_id() -> None:
    source = resolve("someone/some.model-v2")
    assert (source.kind, source.name, source.location) == ("hub", "someone/some.model-v2", "someone/some.model-v2")


def test_a_folder_and_a_gguf_file(llama_folder: Path, gguf_file: Path) -> None:
    folder, file = resolve(llama_folder), resolve(str(gguf_file))
    assert (folder.kind, folder.name, folder.location) == ("folder", "tiny-llama", str(llama_folder))
    assert (file.kind, file.name, file.location) == ("gguf", "tiny", str(gguf_file))


@pytest.mark.parametrize("name", ["model.bin", "some/model.pt", "weights.PTH", "a.ckpt", "a.pkl", "a.pickle"])
def test_a_pickle_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="can run code when it is read"):
        resolve(name)


def test_a_folder_of_pickles_is_refused(llama_folder: Path) -> None:
    (llama_folder / "model.safetensors").rename(llama_folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match=r"in pytorch_model\.bin, .*save_pretrained"):
        resolve(llama_folder)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "page.gguf"
    file.write_text("<html>")
    with pytest.raises(UnsupportedModelError, match="does not begin as a GGUF file"):
        resolve(file)


def test_a_folder_that_holds_no_model(tmp_path: Path, llama_folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        resolve(tmp_path)
    (llama_folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no \*\.safetensors"):
        resolve(llama_folder)


@pytest.mark.parametrize("name", ["smollm", "./nowhere", "missing.gguf", "a b", "", "../x/y/z"])
def test_a_name_that_means_nothing_suggests_what_does(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"Did you mean smollm2|The catalogue has: smollm2, "):
        resolve(name)


def test_a_folder_is_identified_by_its_files(llama_folder: Path) -> None:
    before = folder_revision(llama_folder)
    assert folder_revision(llama_folder) == before
    weights = llama_folder / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    after_weights = folder_revision(llama_folder)
    (llama_folder / "tokenizer.json").write_text("{}")
    after_tokenizer = folder_revision(llama_folder)
    config = llama_folder / "config.json"
    config.write_text(config.read_text() + "\n")
    assert len({before, after_weights, after_tokenizer, folder_revision(llama_folder)}) == 4


def test_a_gguf_file_is_identified_by_its_content(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("first", "copy", "other"))
    first.write_bytes(b"GGUF one")
    copy.write_bytes(b"GGUF one")
    other.write_bytes(b"GGUF two")
    assert gguf_revision(first) == gguf_revision(copy) != gguf_revision(other)
