"""Cost: KV bytes by formula (torch-free), and what the devices say of their memory.

The names are imported on first use, so that the formulas can be used where torch is not imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lighttransfer_core.cost.device import DeviceMemory, available_bytes, memory_stats
    from lighttransfer_core.cost.formulas import kv_bytes, kv_bytes_per_layer

_HOME = {
    "DeviceMemory": "device",
    "available_bytes": "device",
    "kv_bytes": "formulas",
    "kv_bytes_per_layer": "formulas",
    "memory_stats": "device",
}

__all__ = ["DeviceMemory", "available_bytes", "kv_bytes", "kv_bytes_per_layer", "memory_stats"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
