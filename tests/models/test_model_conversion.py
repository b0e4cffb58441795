"""GGUF files: the same logits as the weights they were written from, and a faithful converted folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lighttransfer_core.errors import ModelError
from lighttransfer_core.models import conversion, load_model
from lighttransfer_core.models.conversion import convert_gguf
from lighttransfer_core.models.progress import no_progress
from tests.conftest import make_tiny
from tests.models.checkpoints import write_gguf


def test_a_gguf_file_gives_the_logits_it_was_written_from(gguf_file: Path, ids: torch.Tensor) -> None:
    lm = load_model(gguf_file, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, make_tiny("llama")(ids).logits, atol=2e-5, rtol=1e-4)
    assert lm.spec.name == "tiny"
    assert lm.spec.revision is not None
    assert lm.spec.revision.startswith("gguf-")
    assert "quantised" in lm.spec.notes


def test_the_split_that_transformers_misses_is_mended(gguf_file: Path) -> None:
    tokenizer = load_model(gguf_file, device="cpu").tokenizer
    assert tokenizer is not None
    assert tokenizer.tokenize("a  1") == ["a", "ĠĠ", "1"]


def test_an_unknown_split_is_told(tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    write_gguf(file, make_tiny("llama"), pretokenizer="never-heard-of")
    assert "'never-heard-of' is unknown" in load_model(file, device="cpu").spec.notes


def test_conversion_writes_an_ordinary_model(gguf_file: Path, tmp_path: Path, ids: torch.Tensor) -> None:
    folder = tmp_path / "converted"
    folder.mkdir()
    seen: list[float] = []
    convert_gguf(gguf_file, folder, lambda message, fraction: seen.append(fraction))
    assert seen == sorted(seen)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert not hasattr(model.config, "quantization_config")
    assert model.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 512
    direct = load_model(gguf_file, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, direct.model(ids).logits, atol=1e-5, rtol=1e-4)


def test_a_conversion_that_reads_back_differently_is_refused(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = conversion.read_gguf

    def read_then_change(*arguments: Any) -> Any:
        model, tokenizer = read(*arguments)
        save = model.save_pretrained

        def save_another(folder: Path) -> None:
            save(folder)
            with torch.no_grad():
                model.lm_head.weight.mul_(2)

        monkeypatch.setattr(model, "save_pretrained", save_another)
        return model, tokenizer

    monkeypatch.setattr(conversion, "read_gguf", read_then_change)
    with pytest.raises(ModelError, match="other logits"):
        convert_gguf(gguf_file, tmp_path / "converted", no_progress)
