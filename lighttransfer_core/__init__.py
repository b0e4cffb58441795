"""LightTransfer: find the lazy layers of a language model and give them streaming attention.

The names below are the whole public surface. They are imported on first use, so that a process that only needs the
plain data types, as the page process does, never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "load_model": "lighttransfer_core.models",
    "LoadedModel": "lighttransfer_core.models",
    "run_prefill": "lighttransfer_core.prefill",
    "Prefill": "lighttransfer_core.prefill",
    "Keep": "lighttransfer_core.keep",
    "score_layers": "lighttransfer_core.laziness",
    "list_metrics": "lighttransfer_core.laziness",
    "list_tasks": "lighttransfer_core.tasks",
    "RECOMMENDED_METRIC": "lighttransfer_core.selection",
    "aggregate_scores": "lighttransfer_core.selection",
    "plan_from_scores": "lighttransfer_core.selection",
    "plan_from_threshold": "lighttransfer_core.selection",
    "votes": "lighttransfer_core.selection",
    "plan_from_votes": "lighttransfer_core.selection",
    "OnTheFly": "lighttransfer_core.laziness",
    "hybrid": "lighttransfer_core.generation",
    "HybridCache": "lighttransfer_core.cache",
    "decode": "lighttransfer_core.decoding",
    "decode_compiled": "lighttransfer_core.compiled",
    "Lanes": "lighttransfer_core.lanes",
    "compare": "lighttransfer_core.comparison",
    "continuation_nll": "lighttransfer_core.comparison",
    "Window": "lighttransfer_core.types",
    "ConversionPlan": "lighttransfer_core.types",
    "ModelSpec": "lighttransfer_core.types",
    "ModelIdentity": "lighttransfer_core.types",
    "LayerScores": "lighttransfer_core.types",
    "DecodeEvent": "lighttransfer_core.events",
    "LaneSettings": "lighttransfer_core.events",
    "LaneStep": "lighttransfer_core.events",
    "Comparison": "lighttransfer_core.events",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lighttransfer_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
