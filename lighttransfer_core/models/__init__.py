"""Models: how they are loaded, what their shape is, and how a prompt becomes token ids.

The names are imported on first use, because the catalogue (`lighttransfer_core.models.catalogue`) is read by
processes that never import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lighttransfer_core.models.embedded import prepare_embedded
    from lighttransfer_core.models.loading import LoadedModel, fetch_model, load_model
    from lighttransfer_core.models.prompts import RenderedPrompt, render_prompt, tokens_before_question
    from lighttransfer_core.models.spec import describe

_HOME = {
    "LoadedModel": "loading",
    "RenderedPrompt": "prompts",
    "describe": "spec",
    "fetch_model": "loading",
    "load_model": "loading",
    "prepare_embedded": "embedded",
    "render_prompt": "prompts",
    "tokens_before_question": "prompts",
}

__all__ = [
    "LoadedModel",
    "RenderedPrompt",
    "describe",
    "fetch_model",
    "load_model",
    "prepare_embedded",
    "render_prompt",
    "tokens_before_question",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
