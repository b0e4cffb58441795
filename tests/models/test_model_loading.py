"""load_model: the same logits as the checkpoint, our attention set, the facts recorded, and no code run."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lighttransfer_core.attention import IMPLEMENTATION
from lighttransfer_core.errors import InvalidInputError, ModelDoesNotFitError, ModelError, UnsupportedModelError
from lighttransfer_core.models import LoadedModel, fetch_model, load_model, loading, placement, render_prompt
from tests.conftest import make_tiny


def test_a_folder_gives_the_logits_of_the_model_saved(tiny: PreTrainedModel, tmp_path: Path, ids: torch.Tensor) -> None:
    tiny.save_pretrained(tmp_path / "saved")
    lm = load_model(tmp_path / "saved", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, tiny(ids).logits, atol=5e-5, rtol=1e-4)
    assert lm.model.config._attn_implementation == IMPLEMENTATION
    assert not lm.model.training
    assert lm.tokenizer is None
    assert lm.spec.name == "saved"
    assert (lm.spec.dtype, lm.spec.device) == ("float32", "cpu")


def test_the_tokenizer_of_a_folder(llama_folder: Path, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    byte_tokenizer.save_pretrained(llama_folder)
    lm = load_model(str(llama_folder), device="cpu")
    assert lm.spec.has_chat_template
    expected = render_prompt(byte_tokenizer, "Hello").input_ids
    assert torch.equal(render_prompt(lm.tokenizer, "Hello").input_ids, expected)


def test_progress_runs_from_start_to_end(llama_folder: Path) -> None:
    seen: list[tuple[str, float]] = []
    load_model(llama_folder, device="cpu", progress=lambda message, fraction: seen.append((message, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert seen[-1] == ("tiny-llama is ready", 1.0)


def test_precision_can_be_chosen(llama_folder: Path) -> None:
    lm = load_model(llama_folder, device="cpu", dtype="bfloat16")
    assert lm.model.dtype == torch.bfloat16
    assert (lm.spec.dtype, lm.spec.dtype_bytes) == ("bfloat16", 2)
    assert load_model(llama_folder, device="cpu", dtype=torch.float64).spec.dtype == "float64"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_weights_lie_in_memory_of_their_own(llama_folder: Path, dtype: str) -> None:
    lm = load_model(llama_folder, device="cpu", dtype=dtype)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(llama_folder) not in maps.read_text()
    parameters = list(lm.model.parameters())
    assert all(one.is_contiguous() and one.untyped_storage().nbytes() == one.nbytes for one in parameters)
    assert len({one.untyped_storage().data_ptr() for one in parameters}) == len(parameters)


def test_what_is_loaded_can_be_saved_again(llama_folder: Path, tmp_path: Path) -> None:
    load_model(llama_folder, device="cpu").model.save_pretrained(tmp_path / "again")
    saved, again = (load_file(folder / "model.safetensors") for folder in (llama_folder, tmp_path / "again"))
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    config = make_tiny("llama").config
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    model = load_model(tmp_path / "tied", device="cpu").model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_changed_weights_are_another_revision(llama_folder: Path) -> None:
    before = load_model(llama_folder, device="cpu").spec.revision
    assert load_model(llama_folder, device="cpu").spec.revision == before
    model = make_tiny("llama")
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained(llama_folder)
    assert load_model(llama_folder, device="cpu").spec.revision != before


def test_what_does_not_fit_is_refused_before_a_weight_is_read(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (llama_folder / "model.safetensors").write_bytes(b"reading this would fail")
    monkeypatch.setattr(placement, "available_bytes", lambda device: 10_000)
    with pytest.raises(ModelDoesNotFitError, match=r"tiny-llama needs 2..\.. kB"):
        load_model(llama_folder, device="cpu")


def test_damaged_weights_are_told(llama_folder: Path) -> None:
    (llama_folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="damaged"):
        load_model(llama_folder, device="cpu")


@pytest.mark.parametrize("cut", ["{", '{"a":', "[]"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_configuration_or_tokenizer_is_told(
    llama_folder: Path, byte_tokenizer: PreTrainedTokenizerFast, name: str, cut: str
) -> None:
    byte_tokenizer.save_pretrained(llama_folder)
    (llama_folder / name).write_text(cut)
    with pytest.raises(ModelError, match=f"(configuration|tokenizer) in .*{llama_folder.name}|never run"):
        load_model(llama_folder, device="cpu")


def test_missing_weights_are_never_made_up(llama_folder: Path) -> None:
    weights = load_file(llama_folder / "model.safetensors")
    del weights["model.layers.2.self_attn.k_proj.weight"]
    save_file(weights, llama_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of the model's tensors .* model\.layers\.2\.self_attn\.k_proj"):
        load_model(llama_folder, device="cpu")


def test_weights_of_another_shape_are_refused(llama_folder: Path) -> None:
    config = json.loads((llama_folder / "config.json").read_text())
    config["intermediate_size"] = 80
    (llama_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"12 of the model's tensors .* model\.layers\.0\.mlp"):
        load_model(llama_folder, device="cpu")


def test_code_that_comes_with_a_model_is_not_run(llama_folder: Path) -> None:
    config = json.loads((llama_folder / "config.json").read_text())
    config["model_type"] = "homemade"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (llama_folder / "config.json").write_text(json.dumps(config))
    (llama_folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsupportedModelError, match="never run"):
        load_model(llama_folder, device="cpu")


def test_a_model_that_computes_attention_by_itself_is_refused(tmp_path: Path) -> None:
    BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)).save_pretrained(tmp_path / "b")
    with pytest.raises(UnsupportedModelError, match="bloom"):
        load_model(tmp_path / "b", device="cpu")


def test_a_device_that_is_not_there(llama_folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a device name"):
        load_model(llama_folder, device="abacus")


def test_a_revision_is_for_the_hub(llama_folder: Path) -> None:
    for name in ("smollm2", llama_folder):
        with pytest.raises(InvalidInputError, match="revision='main' is for models of the hub"):
            load_model(name, revision="main")


def test_fetching_a_folder_returns_it(llama_folder: Path, gguf_file: Path) -> None:
    assert fetch_model(llama_folder) == llama_folder
    assert fetch_model(gguf_file) == gguf_file


def test_loading_in_several_threads_at_once(
    llama_folder: Path, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[LoadedModel] = []
    load, alone = loading._load, []

    def load_watched(*arguments: Any) -> Any:
        alone.append(loading._CONSTRUCTION.locked())
        return load(*arguments)

    monkeypatch.setattr(loading, "_load", load_watched)
    threads = [threading.Thread(target=lambda: loaded.append(load_model(llama_folder, device="cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        logits = [lm.model(ids).logits for lm in loaded]
    assert alone == [True] * 4
    assert len(logits) == 4
    assert all(torch.equal(logits[0], other) for other in logits)
    # transformers' own initialisation, which loading switches off meanwhile, works again afterwards.
    assert make_tiny("llama").lm_head.weight.std() > 0
