"""What a machine has left, from files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rkllm_converter.preflight import Disk, Machine
from rkllm_converter.preflight.machine import available_mb, disk_of

GB = 1 << 30


class Files:
    """A /proc and a /sys/fs/cgroup: 8 GB of memory and 2 GB of swap are free."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.write(
            "proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 2097152 kB\nHugePages: 0\n"
        )
        self.root = root

    def write(self, path: str, content: str | int) -> None:
        file = (self.proc.parent / path) if not path.startswith("/") else Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")

    def available_gb(self) -> float:
        return available_mb(self.proc, self.cgroup) / 1024


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_memory_without_groups_is_that_of_the_machine(files: Files) -> None:
    assert files.available_gb() == 10


@pytest.mark.parametrize("group", ["/", "/system.slice/x.service"])
def test_a_group_of_version_2(files: Files, group: str) -> None:
    files.write("proc/self/cgroup", f"0::{group}")
    here = f"cgroup{group.rstrip('/')}"
    files.write(f"{here}/memory.max", "max")
    files.write(f"{here}/memory.current", GB)
    assert files.available_gb() == 10
    files.write(f"{here}/memory.max", 4 * GB)
    assert files.available_gb() == 3 + 2
    files.write(f"{here}/memory.stat", f"anon {GB}\ninactive_file {GB // 2}")
    assert files.available_gb() == 3.5 + 2
    files.write(f"{here}/memory.swap.max", 0)
    files.write(f"{here}/memory.swap.current", 0)
    assert files.available_gb() == 3.5
    files.write(f"{here}/memory.current", 9 * GB)
    assert files.available_gb() == 0


def test_a_group_has_the_limits_of_those_above(files: Files) -> None:
    files.write("proc/self/cgroup", "0::/pod/container")
    for path, limit in (("pod", 2), ("pod/container", 6)):
        files.write(f"cgroup/{path}/memory.max", limit * GB)
        files.write(f"cgroup/{path}/memory.current", 0)
    assert files.available_gb() == 2 + 2


@pytest.mark.parametrize("inside", ["", "/docker/abc"])
def test_a_group_of_version_1(files: Files, inside: str) -> None:
    files.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc")
    here = f"cgroup/memory{inside}"
    files.write(f"{here}/memory.limit_in_bytes", 9223372036854771712)
    files.write(f"{here}/memory.usage_in_bytes", GB)
    assert files.available_gb() == 10
    files.write(f"{here}/memory.limit_in_bytes", 4 * GB)
    assert files.available_gb() == 3 + 2
    files.write(f"{here}/memory.stat", f"inactive_file 1\ntotal_inactive_file {GB // 2}")
    assert files.available_gb() == 3.5 + 2
    files.write(f"{here}/memory.memsw.limit_in_bytes", 4 * GB)
    files.write(f"{here}/memory.memsw.usage_in_bytes", GB)
    assert files.available_gb() == 3.5


@pytest.mark.parametrize("folder", ["", "not/yet"])
def test_a_disk_is_that_of_the_nearest_folder_above(folder: str, tmp_path: Path) -> None:
    asked = []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        return os.statvfs_result((512, 4096, 900, 800, 700, 0, 0, 0, 0, 255))

    assert disk_of(tmp_path / folder, statvfs) == Disk(tmp_path.stat().st_dev, 700 * 4096 / 2**20)
    assert asked == [tmp_path]


def test_this_machine(tmp_path: Path) -> None:
    here = Machine.here()
    assert here.memory_mb > 0
    assert here.disk(tmp_path).device == tmp_path.stat().st_dev
    assert here.disk(tmp_path).free_mb > 0
