from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import nn

from lighttransfer_core import machine_code
from lighttransfer_core.machine_code import STORED, compiled, narrowed, readable


def doubled(x: int) -> int:
    return 2 * x


def test_functions_become_machine_code() -> None:
    made: Any = compiled(doubled)
    assert made(21) == 42
    assert made.signatures


def test_what_cannot_be_kept_on_disk_is_compiled_each_time() -> None:
    """As a function without a file; numba refuses to keep it."""
    scope: dict[str, Any] = {}
    exec("def tripled(x):\n    return 3 * x", scope)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(scope["tripled"])
    assert compiled(scope["tripled"])(14) == 42


def test_threads_come_from_building_blocks_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    installed = any(file.name == "libtbb.so.12" for file in metadata.files("tbb") or [])
    assert machine_code._load_threads() == installed == machine_code.HAS_THREADS
    monkeypatch.setattr(metadata, "files", missing)
    assert not machine_code._load_threads()


def test_only_plain_tensors_on_the_cpu_are_read_by_their_address() -> None:
    plain = torch.zeros(4, 6)
    assert readable(plain)
    assert readable(nn.Parameter(plain))
    assert readable(plain[:, 2:4])
    assert not readable(plain.t())
    assert not readable(plain.to("meta"))
    assert not readable(plain.double())
    assert not readable(plain.as_subclass(type("Other", (torch.Tensor,), {})))


@compiled
def narrow_all(numbers: Any, made: Any) -> None:
    for i in range(len(numbers)):
        made[i] = narrowed(made[i], numbers[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    """Halves between two neighbours, what is too large or too small, and what is no number."""
    bits = torch.arange(-(2**31), 2**31, 99_991).to(torch.int32)
    halves = (torch.arange(-300, 300) << 16) + 0x8000
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0, 65_519.9, 1e-40])
    numbers = torch.cat([bits.view(torch.float32), halves.to(torch.int32).view(torch.float32), special])
    made = np.zeros(len(numbers), STORED[dtype].dtype)
    narrow_all(numbers.numpy(), made)
    torch.testing.assert_close(torch.from_numpy(made).view(dtype), numbers.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_loops_are_made_for_other_processors_too() -> None:
    """For one that has nothing but what all of its kind have, loops call nothing that is not there."""
    code = """
import torch
from lighttransfer_core.models import dots, loops, norms
for dtype in (torch.float32, torch.bfloat16):
    loops.make_ready(dtype)
    ones = torch.ones(20, 6, dtype=dtype)
    assert torch.equal(dots.dots(ones, ones[:9]), torch.full((20, 9), 6, dtype=dtype))
    assert torch.equal(norms.quick(ones, ones[0], 0.0), ones)
"""
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
