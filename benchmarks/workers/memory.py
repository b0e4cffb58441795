"""The most memory that a piece of work holds at a time: of the process, or of the accelerator that it runs on."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class Peak:
    """Watches from its making on. What was freed before is given back to the system first, so that it is not reused
    unseen."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._device = device
        self._before: int | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif device.type == "cpu" and os.access(_RESET, os.W_OK):
            # the GNU library keeps freed memory; musl has no such call, and keeps none
            if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
                library.malloc_trim(0)
            _RESET.write_text("5", encoding="ascii")
            self._before = _kibibytes("VmRSS")

    def beyond(self, kept_bytes: int) -> int | None:
        """Bytes held at most since the beginning, beyond those held then and those kept now; None where the system
        does not say."""
        if self._before is None:
            return None
        cuda = self._device.type == "cuda"
        most = torch.cuda.max_memory_allocated(self._device) if cuda else _kibibytes("VmHWM")
        return max(most - self._before - kept_bytes, 0)


def _kibibytes(name: str) -> int:
    """A line of the process's status, in bytes."""
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
