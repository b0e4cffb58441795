from __future__ import annotations

from importlib import metadata
from typing import Any

import numba
import pytest
import torch
from torch import nn

from lighttransfer_core import machine_code
from lighttransfer_core.machine_code import compiled, readable


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
