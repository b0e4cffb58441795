from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from lighttransfer_core import allocator
from lighttransfer_core.allocator import keep_freed_memory, memory_of

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

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
OFFERED = PAGES.is_file() and "[never]" not in PAGES.read_text()


def test_memory_for_weights_is_asked_for_in_huge_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the system's own list of a process' memory has it; not where the system gives none."""
    memory = memory_of(64 << 20)
    memory[:3] = b"abc"
    assert (len(memory), memory[:4]) == (64 << 20, b"abc\0")
    assert is_advised(memory) is OFFERED
    offered = tmp_path / "enabled"
    offered.write_text("always madvise [never]\n")
    monkeypatch.setattr(allocator, "_OFFERED", offered)
    assert not is_advised(memory_of(64 << 20))


def is_advised(memory: mmap.mmap) -> bool:
    """Whether the middle of it is marked for huge pages."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + len(memory) // 2
    maps, inside = Path("/proc/self/smaps"), False
    for line in maps.read_text().splitlines() if maps.is_file() else []:
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            first, end = (int(number, 16) for number in name.split("-"))
            inside = first <= address < end
        elif inside and name == "VmFlags:":
            return "hg" in rest
    return False


def test_freed_buffers_are_kept() -> None:
    """Three of 20 MiB: by default each is the system's own again; kept, all lie ready for the next."""
    assert [held("default"), held("kept")] == [0, 60] if GNU else not keep_freed_memory()


RETURNED = """
import ctypes
from pathlib import Path
from lighttransfer_core.allocator import keep_freed_memory, return_freed_memory
keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
buffers = [ctypes.c_void_p(library.malloc(1 << 20)) for _ in range(50)]
for buffer in buffers:
    ctypes.memset(buffer, 1, 1 << 20)
for buffer in buffers[:-1]:
    library.free(buffer)
before = resident()
return_freed_memory()
print(before - resident())
"""


def test_what_lies_free_below_what_is_held_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, check=True, text=True)
    assert int(done.stdout) >= (45 if GNU else 0)


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
