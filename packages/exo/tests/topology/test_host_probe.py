"""CPU and memory, with psutil, without it, and where it fails."""

from __future__ import annotations

import dataclasses
import platform
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from exo.topology import Memory, Reader, Surroundings
from exo.topology.probes.host import probe_host

X86 = "processor\t: 0\nmodel name\t: AMD Ryzen 7  5800X\n\nprocessor\t: 1\nmodel name\t: AMD Ryzen 7  5800X\n"
MEMINFO = "MemTotal:        7999812 kB\nMemFree:          451060 kB\nMemAvailable:    6000000 kB\n"


def arm(*parts: str) -> str:
    return "\n".join(
        f"processor\t: {index}\nmodel name\t: ARMv8 Processor rev 0 (v8l)\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x2\nCPU part\t: {part}\nCPU revision\t: 0\n"
        for index, part in enumerate(parts)
    )


@pytest.fixture
def psutil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for psutil: 2 cores with 4 threads, 16 GiB of which 4 are free."""
    module: Any = ModuleType("psutil")
    module.cpu_count = lambda logical=True: 4 if logical else 2
    module.virtual_memory = lambda: SimpleNamespace(total=16 * 2**30, available=4 * 2**30)
    monkeypatch.setitem(sys.modules, "psutil", module)
    return module


def raising(error: Exception) -> Any:
    def call(*args: object, **kwargs: object) -> Any:
        raise error

    return call


def test_all_is_known(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    found = probe_host(around, reader)
    assert found.machine.architecture == platform.machine()
    assert found.machine.os == platform.system()
    assert found.machine.cpu_model == "AMD Ryzen 7 5800X"
    assert (found.machine.physical_cores, found.machine.logical_cores) == (2, 4)
    assert found.memory == Memory(total=16 * 2**30, available=4 * 2**30)
    assert found.accelerators == ()
    assert reader.unknown == []


def test_the_real_psutil_answers(around: Surroundings, reader: Reader) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    found = probe_host(around, reader)
    assert found.machine.logical_cores
    assert found.memory.total
    assert found.memory.available
    assert found.memory.available <= found.memory.total


def test_arm_cores_are_named_by_their_numbers(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(arm(*["0xd05"] * 4, *["0xd0b"] * 4))
    assert probe_host(around, reader).machine.cpu_model == "4 x Cortex-A55, 4 x Cortex-A76"


def test_an_arm_core_that_is_not_known_keeps_its_numbers(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(arm("0xfff") + "\n" + arm("0xd05").replace("0x41", "0x51"))
    assert probe_host(around, reader).machine.cpu_model == "1 x Arm core 0x41/0xfff, 1 x Arm core 0x51/0xd05"


def test_the_board_has_a_name(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    (around.proc / "device-tree").mkdir()
    (around.proc / "device-tree" / "model").write_bytes(b"Radxa ROCK 5B\0")
    assert probe_host(around, reader).machine.model == "Radxa ROCK 5B"
    assert reader.unknown == []


def test_a_board_name_that_cannot_be_read_is_told(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    (around.proc / "device-tree" / "model").mkdir(parents=True)
    assert probe_host(around, reader).machine.model is None
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith("Board model: IsADirectoryError: ")


@pytest.mark.parametrize(
    ("cpuinfo", "reason"),
    [(None, "FileNotFoundError: "), ("processor : 0\n", "/proc/cpuinfo has no line"), ("model name :\n", "the answer")],
)
def test_a_cpu_without_a_name(
    around: Surroundings, reader: Reader, psutil: Any, cpuinfo: str | None, reason: str
) -> None:
    if cpuinfo is not None:
        (around.proc / "cpuinfo").write_text(cpuinfo)
    found = probe_host(around, reader)
    assert found.machine.cpu_model is None
    assert found.machine.physical_cores == 2
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith(f"CPU model name: {reason}")


def test_macos_names_its_cpu_elsewhere(around: Surroundings, reader: Reader, psutil: Any) -> None:
    assert probe_host(dataclasses.replace(around, platform="darwin"), reader).machine.cpu_model is None
    assert reader.unknown == []


def test_windows_asks_the_platform_module(
    around: Surroundings, reader: Reader, psutil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")
    assert probe_host(dataclasses.replace(around, platform="win32"), reader).machine.cpu_model == "Intel64 Family 6"


def test_cores_that_psutil_does_not_know(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    psutil.cpu_count = lambda logical=True: 4 if logical else None
    found = probe_host(around, reader)
    assert (found.machine.physical_cores, found.machine.logical_cores) == (None, 4)
    assert reader.unknown == ["CPU physical cores: the answer was None, not a number"]


def test_proc_stands_in_where_psutil_fails(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    (around.proc / "meminfo").write_bytes(MEMINFO.encode() + b"ShadowCallStack:10373888 kB\n" + bytes(16))
    psutil.virtual_memory = raising(IndexError("list index out of range"))
    assert probe_host(around, reader).memory == Memory(total=7999812 * 1024, available=6000000 * 1024)
    assert reader.unknown == []


def test_memory_that_nobody_tells(around: Surroundings, reader: Reader, psutil: Any) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    (around.proc / "meminfo").write_text("MemTotal: 1024 kB\n")
    psutil.virtual_memory = lambda: SimpleNamespace(total=0, available=0)
    assert probe_host(around, reader).memory == Memory(total=2**20, available=None)
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith("Memory available: the answer was 0, ")
    assert reader.unknown[0].endswith("; /proc/meminfo has no line 'MemAvailable'")


def test_psutil_is_not_there(around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    (around.proc / "cpuinfo").write_text(X86)
    (around.proc / "meminfo").write_text(MEMINFO)
    found = probe_host(around, reader)
    assert found.machine.cpu_model == "AMD Ryzen 7 5800X"
    assert found.memory.total == 7999812 * 1024
    assert [sentence.split(":")[0] for sentence in reader.unknown] == ["CPU physical cores", "CPU logical cores"]


def test_an_architecture_that_python_does_not_know(
    around: Surroundings, reader: Reader, psutil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (around.proc / "cpuinfo").write_text(X86)
    monkeypatch.setattr(platform, "machine", lambda: "")
    assert probe_host(around, reader).machine.architecture is None
    assert reader.unknown == ["Architecture: the answer was '', not a text"]
