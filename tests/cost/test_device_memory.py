"""Device memory: the same fields everywhere, and a container's limit taken for what it is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from lighttransfer_core.cost import device
from lighttransfer_core.cost.device import DeviceMemory, available_bytes, memory_stats


def test_the_cpu_reports_this_process() -> None:
    before = memory_stats("cpu")
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    after = memory_stats(held.device)
    assert after.device == "cpu"
    assert after.process - before.process > 32 * 2**20
    assert after.allocated == after.reserved == after.process <= after.total
    assert 0 < available_bytes("cpu") <= after.total


def test_an_accelerator_reports_the_same_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda place: (700, 1000))
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda place: 150)
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda place: 250)
    stats = memory_stats("cuda:1")
    assert stats == DeviceMemory("cuda:1", allocated=150, reserved=250, total=1000, process=stats.process)
    assert stats.process > 0
    assert available_bytes("cuda:1") == 700 + (250 - 150)
    assert DeviceMemory.from_json(stats.to_json()) == stats


def test_an_accelerator_that_shares_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 150)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 250)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    stats = memory_stats("mps")
    assert (stats.allocated, stats.reserved, stats.total) == (150, 250, 1000)
    assert available_bytes("mps") == 850
    monkeypatch.setattr(device, "_host_total_and_available", lambda: (2000, 10))
    assert available_bytes("mps") == 10


@pytest.mark.parametrize(("limit", "usage", "left"), [("4000000", "1000000", 3_000_000), ("1000", "2000", 0)])
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, usage: str, left: int
) -> None:
    limit_file, usage_file = tmp_path / "memory.max", tmp_path / "memory.current"
    limit_file.write_text(f"{limit}\n")
    usage_file.write_text(f"{usage}\n")
    monkeypatch.setattr(device, "_CGROUP_FILES", ((limit_file, usage_file),))
    assert available_bytes("cpu") == left
    assert memory_stats("cpu").total == int(limit)


def test_no_limit_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = tmp_path / "memory.max"
    unlimited.write_text("max\n")
    monkeypatch.setattr(device, "_CGROUP_FILES", ((unlimited, tmp_path / "missing"),))
    assert memory_stats("cpu").total == psutil.virtual_memory().total
