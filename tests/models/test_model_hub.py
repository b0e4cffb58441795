"""The hub: what is fetched, when, and what is said if it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from lighttransfer_core.errors import ModelDoesNotFitError, ModelNotFoundError, UnsupportedModelError
from lighttransfer_core.models import fetch_model, load_model, placement
from tests.conftest import make_tiny
from tests.models.fake_hub import COMMIT, HUB_ID, serve

Hub = Callable[..., AbstractContextManager[list[str]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """Puts a hub on loopback, and an empty cache, in the place of the real ones."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    @contextmanager
    def online(folder: Path, refusal: str | None = None) -> Any:
        with serve(folder, refusal) as (address, handed_out), monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "ENDPOINT", address)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
            )
            yield handed_out

    return online


def test_a_model_is_fetched_loaded_and_found_again_offline(hub: Hub, llama_folder: Path, ids: torch.Tensor) -> None:
    seen: list[tuple[str, float]] = []
    (llama_folder / "pytorch_model.bin").write_bytes(b"never read")
    with hub(llama_folder) as handed_out:
        lm = load_model(HUB_ID, device="cpu", progress=lambda message, fraction: seen.append((message, fraction)))
    assert "model.safetensors" in handed_out
    assert "pytorch_model.bin" not in handed_out
    assert lm.spec.revision == COMMIT
    assert lm.spec.name == HUB_ID
    assert any(message.startswith("Downloading: ") for message, _ in seen)
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
    again = load_model(HUB_ID, device="cpu")
    assert again.spec == lm.spec
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, lm.model(ids).logits)
        torch.testing.assert_close(again.model(ids).logits, make_tiny("llama")(ids).logits, atol=2e-5, rtol=1e-4)


def test_what_does_not_fit_is_not_downloaded(hub: Hub, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "available_bytes", lambda device: 1000)
    with hub(llama_folder) as handed_out, pytest.raises(ModelDoesNotFitError, match=HUB_ID):
        load_model(HUB_ID, device="cpu")
    assert "config.json" in handed_out
    assert "model.safetensors" not in handed_out


def test_fetching_alone(hub: Hub, llama_folder: Path) -> None:
    with hub(llama_folder):
        folder = fetch_model(HUB_ID)
    assert folder.name == COMMIT
    assert (folder / "model.safetensors").is_file()
    assert fetch_model(HUB_ID) == folder


def test_a_download_can_be_broken_off(hub: Hub, llama_folder: Path) -> None:
    class Stop(Exception):
        pass

    def stop_at_bytes(message: str, fraction: float) -> None:
        if message.startswith("Downloading"):
            raise Stop

    with hub(llama_folder), pytest.raises(Stop):
        fetch_model(HUB_ID, progress=stop_at_bytes)


def test_only_pickles_on_the_hub(hub: Hub, llama_folder: Path) -> None:
    (llama_folder / "model.safetensors").rename(llama_folder / "pytorch_model.bin")
    with hub(llama_folder), pytest.raises(UnsupportedModelError, match="has no safetensors weights"):
        load_model(HUB_ID, device="cpu")


def test_what_is_not_there(hub: Hub, llama_folder: Path) -> None:
    with hub(llama_folder):
        with pytest.raises(ModelNotFoundError, match="no model 'someone/else'"):
            load_model("someone/else")
        with pytest.raises(ModelNotFoundError, match="no revision 'v9'"):
            load_model(HUB_ID, revision="v9")


def test_a_gated_model_says_what_to_do(hub: Hub, llama_folder: Path) -> None:
    with (
        hub(llama_folder, refusal="GatedRepo"),
        pytest.raises(ModelNotFoundError, match=r"accept its licence at .*HF_TOKEN"),
    ):
        load_model(HUB_ID)


def test_without_network_and_cache_it_says_what_to_do(hub: Hub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"not in the local cache .* unset HF_HUB_OFFLINE"):
        load_model("llama-3.1-8b")


def test_a_hub_that_answers_nonsense(hub: Hub, llama_folder: Path) -> None:
    with hub(llama_folder, refusal="SomethingElse"), pytest.raises(ModelNotFoundError, match="cannot be reached"):
        load_model(HUB_ID)
