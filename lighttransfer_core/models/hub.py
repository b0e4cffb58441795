"""Fetching a model's files from the Hugging Face hub, or finding them in its cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.std import tqdm

from lighttransfer_core.errors import ModelNotFoundError, UnsupportedModelError
from lighttransfer_core.models.progress import Progress

_SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors"]
# Subfolders hold the same weights in other formats, and so does Mistral's consolidated file.
_OTHER_FORMATS = ["*/*", "consolidated*"]


def looks_like_hub_id(name: str) -> bool:
    """Whether the name has the form `owner/model`, or `model` alone for the oldest ones."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) is not None


def fetch_config(hub_id: str, revision: str | None, progress: Progress) -> Path:
    """The folder of a snapshot with everything but the weights; its name is the resolved commit.

    Raises
    ------
    ModelNotFoundError
        No such model or revision, not allowed to read it, or the hub is out of reach and the cache has no copy.
    """
    return _snapshot(hub_id, revision, _SMALL_FILES, progress)


def fetch_weights(hub_id: str, commit: str, progress: Progress) -> Path:
    """The folder of a snapshot, weights included. The progress may raise, to break off the download.

    Raises
    ------
    ModelNotFoundError
        The weights can be neither reached nor found in the cache.
    UnsupportedModelError
        The model has no safetensors weights.
    """
    folder = _snapshot(hub_id, commit, _SMALL_FILES + _WEIGHT_FILES, progress)
    if not any(folder.glob("*.safetensors")):
        raise UnsupportedModelError(
            f"{hub_id} has no safetensors weights. Other formats can run code when they are read and are refused: "
            "choose a model that offers safetensors."
        )
    return folder


def _snapshot(hub_id: str, revision: str | None, patterns: list[str], progress: Progress) -> Path:
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=_OTHER_FORMATS,
            tqdm_class=_bar(progress),
        )
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id} and set HF_TOKEN to a token of "
            "your account."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{hub_id} has no revision {revision!r}: give a branch, tag or commit.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"There is no model {hub_id!r} on the hub, or it is private: check the spelling, or set HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx2.HTTPError) as error:
        raise ModelNotFoundError(
            f"{hub_id} is not in the local cache and the hub cannot be reached ({_first_line(error)}). Connect to the "
            f"network, unset HF_HUB_OFFLINE, or give the path of a local folder."
        ) from error
    return Path(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _bar(progress: Progress) -> type[Any]:
    """A bar for huggingface_hub that draws nothing and reports the bytes written.

    It stays disabled for tqdm, whose lock would not survive a progress that raises.
    """
    furthest = 0.0

    class ReportingBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, unit: str = "it", desc: str = "", **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            # A second bar counts the bytes received, which differ from those written.
            self.reports = unit == "B" and desc != "Downloading bytes"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.reports and self.total:
                self._report(min(self.n, self.total))

        def refresh(self, *args: Any, **kwargs: Any) -> None:
            """Nothing is drawn."""

        def _report(self, done: float) -> None:
            # The total grows while the hub is asked about file after file.
            nonlocal furthest
            furthest = max(furthest, done / self.total)
            progress(f"Downloading: {done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB", furthest)

    return ReportingBar
