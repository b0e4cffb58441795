"""What a device says of its memory: the same fields for an accelerator and for the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lighttransfer_core.types import JsonRecord

_CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


@dataclass(frozen=True)
class DeviceMemory(JsonRecord):
    """Memory of one device, in bytes.

    Attributes
    ----------
    device
        Its name in torch, such as "cpu" or "cuda:0".
    allocated
        Held by live tensors of this process; on the CPU, where torch does not count them, the process's resident set.
    reserved
        Taken from the device by this process, free blocks included; on the CPU the resident set.
    total
        What the device has; on the CPU at most what the container may use.
    process
        The resident set of this process, whatever the device.
    """

    device: str
    allocated: int
    reserved: int
    total: int
    process: int


def memory_stats(device: torch.device | str) -> DeviceMemory:
    """What the device and this process hold now."""
    place = torch.device(device)
    process = int(psutil.Process().memory_info().rss)
    if place.type == "cpu":
        return DeviceMemory(str(place), process, process, _host_total_and_available()[0], process)
    if place.type == "mps":
        held, taken = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        return DeviceMemory(str(place), held, taken, torch.mps.recommended_max_memory(), process)
    _, total = torch.accelerator.get_memory_info(place)
    return DeviceMemory(
        device=str(place),
        allocated=torch.accelerator.memory_allocated(place),
        reserved=torch.accelerator.memory_reserved(place),
        total=total,
        process=process,
    )


def available_bytes(device: torch.device | str) -> int:
    """Bytes that this process could still take on the device, its own unused reserve included."""
    place = torch.device(device)
    if place.type == "cpu":
        return _host_total_and_available()[1]
    if place.type == "mps":
        # Apple's accelerator shares the machine's memory and does not say how much of it is free.
        left = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return min(left, _host_total_and_available()[1])
    free, _ = torch.accelerator.get_memory_info(place)
    return free + torch.accelerator.memory_reserved(place) - torch.accelerator.memory_allocated(place)


def _host_total_and_available() -> tuple[int, int]:
    """The machine's memory, or the container's where that is less."""
    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    for limit_file, usage_file in _CGROUP_FILES:
        limit = _read_number(limit_file)
        usage = _read_number(usage_file)
        if limit is not None and usage is not None and limit < total:
            total, available = limit, min(available, max(limit - usage, 0))
    return total, available


def _read_number(file: Path) -> int | None:
    """The file's number; None where there is no such file or no limit ("max")."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else None
