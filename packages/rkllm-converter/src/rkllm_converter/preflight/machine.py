"""What this machine has left: memory and disks. MB are 2^20 bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rkllm_converter.units import MB

__all__ = ["Disk", "Machine", "available_mb", "disk_of"]

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: `device` is the same for folders that share it, `free_mb` what this user may still write."""

    device: int
    free_mb: float


@dataclass(frozen=True, slots=True)
class Machine:
    """- `memory_mb`: what a new process can have, swap included
    - `disk`: of a folder, which need not be there yet
    - `toolkit`: the folder of the Python that has the toolkit; None if there is none
    """

    memory_mb: float
    disk: Callable[[Path], Disk]
    toolkit: Path | None = None

    @classmethod
    def here(cls, toolkit: Path | None = None) -> Machine:
        return cls(available_mb(), disk_of, toolkit)


def disk_of(folder: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> Disk:
    """Of the nearest folder above that is there."""
    whole = folder.expanduser().absolute()
    there = next(one for one in (whole, *whole.parents) if one.exists())
    status = statvfs(there)
    return Disk(there.stat().st_dev, status.f_bavail * status.f_frsize / MB)


def available_mb(proc: Path = _PROC, cgroup: Path = _CGROUP) -> float:
    """MemAvailable and SwapFree, or less if a control group, such as that of a container, allows less.

    A group's page cache that nobody uses counts as free, as it does in MemAvailable. Versions 1 and 2 are read; a
    group has the limits of those above it, too.
    """
    lines = (line.partition(":") for line in (proc / "meminfo").read_text().splitlines())
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if rest.split()}
    memory, swap = sizes.get("MemAvailable", sizes.get("MemFree", 0)), sizes.get("SwapFree", 0)
    for group in _groups(proc, cgroup, ""):
        memory = min(memory, _left(group, "memory.max", "memory.current", "inactive_file", memory))
        swap = min(swap, _left(group, "memory.swap.max", "memory.swap.current", "", swap))
    total = memory + swap
    for group in _groups(proc, cgroup / "memory", "memory"):
        memory = _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", memory)
        both = _left(group, "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes", "total_inactive_file", total)
        total = min(total, memory + swap, both)
    return total / MB


def _groups(proc: Path, root: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and of those above; in a container the root may be the group's own."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            inside = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath(path)
            yield from (root / one for one in (inside, *inside.parents) if ".." not in one.parts)


def _left(group: Path, limit: str, used: str, unused: str, otherwise: int) -> int:
    """What the group still allows; `otherwise` without a limit."""
    try:
        most = int((group / limit).read_text())
        free = most - int((group / used).read_text())
    except (OSError, ValueError):  # there is no such group or limit, which is "max"
        return otherwise
    if unused:
        free += _stat(group / "memory.stat", unused)
    return min(max(free, 0), otherwise)


def _stat(path: Path, key: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(value) for name, _, value in (line.partition(" ") for line in lines) if name == key), 0)
