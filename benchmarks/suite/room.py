"""Whether what is about to be made fits the free memory."""

from __future__ import annotations

from collections.abc import Sequence

from lighttransfer_core.cost.device import available_bytes
from viz.units import bytes_text

_TOGETHER = 0.7
_ALONE = 0.85
"""Shares of the free memory that all sides together, or one of them, may take."""


class Room:
    """The free memory of a device, as it is now."""

    def __init__(self, device: str) -> None:
        self._free = available_bytes(device)

    def lacks(self, nbytes: float) -> str:
        """Why so many bytes are too many; empty where they fit."""
        if nbytes <= _ALONE * self._free:
            return ""
        return f"it takes {bytes_text(nbytes)}, and {bytes_text(self._free)} of memory are free"

    def holds_together(self, sizes: Sequence[float]) -> bool:
        """Whether all of them fit at the same time."""
        return sum(sizes) <= _TOGETHER * self._free
