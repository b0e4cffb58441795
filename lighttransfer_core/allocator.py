"""How memory is asked for, and how what was freed comes back into use."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 << 20
"""The most that the GNU C library takes for the second; it pairs it with twice as much for the first."""

_CHOICES: Final = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""By which a user tells that library how to go about it."""

_OFFERED: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def memory_of(nbytes: int) -> mmap.mmap:
    """Memory for what is read as a whole, again and again: in pages of 2 MiB where Linux gives them to who asks.

    A processor looks up where each page lies, which takes longer than reading one of 4 KiB.
    """
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux" and _OFFERED.is_file() and "[never]" not in _OFFERED.read_text():
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def keep_freed_memory() -> bool:
    """Has the GNU C library reuse buffers of up to 32 MiB and keep up to 64 MiB that are free; whether it does so now.

    By default it returns buffers of a few megabytes to the system and asks for them anew. The system clears every page
    of them, which takes up to a tenth of a prefill on a CPU. These are the numbers that it would come to by itself once
    a buffer of 32 MiB had been freed. What a user has chosen stays, and elsewhere nothing is changed.
    """
    library = _gnu_library()
    if library is None or any(name in os.environ for name in _CHOICES):
        return False
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST))


def return_freed_memory() -> None:
    """Has the GNU C library return to the system what lies free between buffers that are held."""
    library = _gnu_library()
    if library is not None:
        library.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "gnu_get_libc_version") else None
