from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from lighttransfer_core import allocator
from lighttransfer_core.allocator import keep_freed_memory, use_huge_pages

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
ADVISED = """
import sys
from pathlib import Path
from lighttransfer_core.allocator import use_huge_pages
import torch
assert sys.argv[1] == "default" or use_huge_pages()
buffer = torch.empty(64 << 20, dtype=torch.uint8)
address = buffer.data_ptr() + (32 << 20)
inside = False
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, *rest = line.split()
    if "-" in name and not name.endswith(":"):
        first, end = (int(number, 16) for number in name.split("-"))
        inside = first <= address < end
    elif inside and name == "VmFlags:":
        print("hg" in rest)
"""


def test_large_buffers_are_asked_for_in_huge_pages() -> None:
    """As the system's own list of a process' memory has it; also in a process that has imported torch before."""
    assert [told(ADVISED, "default"), told(ADVISED, "huge")] == ["False", "True"] if OFFERED else not use_huge_pages()


def test_huge_pages_are_left_alone_where_a_user_or_the_system_says_no(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert not use_huge_pages()
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    for said in ("always madvise [never]\n", ""):
        offered = tmp_path / "enabled"
        offered.write_text(said) if said else offered.unlink()
        monkeypatch.setattr(allocator, "_OFFERED", offered)
        assert not use_huge_pages()
    assert "THP_MEM_ALLOC_ENABLE" not in allocator.os.environ


def test_freed_buffers_are_kept() -> None:
    """Three of 20 MiB: by default each is the system's own again; kept, all lie ready for the next."""
    assert [told(HELD, "default"), told(HELD, "kept")] == ["0", "60"] if GNU else not keep_freed_memory()


def told(script: str, side: str) -> str:
    """What a process of its own prints: MiB that it holds free after it has freed them, or whether a page is huge."""
    environment = {name: value for name, value in allocator.os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", script, side], capture_output=True, check=True, text=True, env=environment
    )
    return done.stdout.strip()


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
    assert not use_huge_pages()
