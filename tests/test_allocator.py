from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from lighttransfer_core import allocator
from lighttransfer_core.allocator import keep_freed_memory

GNU = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
HELD = """
import ctypes, sys
from lighttransfer_core.allocator import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
class Facts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
library.mallinfo2.restype = Facts
before = library.mallinfo2().fordblks
buffers = [ctypes.c_void_p(library.malloc(20 << 20)) for _ in range(3)]
for buffer in buffers:
    library.free(buffer)
print(library.mallinfo2().fordblks - before >> 20)
"""


def test_freed_buffers_are_kept() -> None:
    """Three of 20 MiB: by default each is the system's own again; kept, all lie ready for the next."""
    assert [held("default"), held("kept")] == [0, 60] if GNU else not keep_freed_memory()


def held(side: str) -> int:
    """MiB that a process of its own holds free after it has freed them."""
    done = subprocess.run([sys.executable, "-c", HELD, side], capture_output=True, check=True, text=True)
    return int(done.stdout)


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=65536")]
)
def test_what_a_user_has_chosen_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not keep_freed_memory()
