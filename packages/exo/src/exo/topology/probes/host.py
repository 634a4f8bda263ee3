"""The machine, its CPU and its memory: from psutil, and from /proc where that is missing or fails."""

from __future__ import annotations

import platform
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from exo.topology.capabilities import Machine, Memory
from exo.topology.contract import Findings, Surroundings
from exo.topology.readings import NoAnswer, Reader, UnusableValue, count, size, text

# Linux names the cores of an Arm CPU by number only; these are Arm's own designs (implementer 0x41), from the kernel's
# arch/arm64/include/asm/cputype.h.
_ARM_LIMITED = "0x41"
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
}


def probe_host(around: Surroundings, reader: Reader) -> Findings:
    """Machine and memory. The CPU's and the computer's name on macOS are left to the Apple probe."""
    machine = Machine(
        architecture=reader.read("Architecture", lambda: text(platform.machine())),
        os=reader.read("Operating system", lambda: text(platform.system())),
        os_release=reader.read("Operating system release", lambda: text(platform.release())),
        model=_board_model(around.proc, reader),
        cpu_model=None if around.platform == "darwin" else _cpu_model(around, reader),
        physical_cores=reader.read("CPU physical cores", lambda: count(_psutil().cpu_count(logical=False), low=1)),
        logical_cores=reader.read("CPU logical cores", lambda: count(_psutil().cpu_count(logical=True), low=1)),
    )
    # psutil fails at the /proc/meminfo of some Arm kernels (its issues 2319 and 2809), and gives 0 for a missing line.
    memory = Memory(
        total=reader.read(
            "Memory total",
            lambda: size(_psutil().virtual_memory().total),
            lambda: _from_meminfo(around.proc, "MemTotal"),
        ),
        available=reader.read(
            "Memory available",
            lambda: size(_psutil().virtual_memory().available),
            lambda: _from_meminfo(around.proc, "MemAvailable"),
        ),
    )
    return Findings(machine=machine, memory=memory)


def _psutil() -> Any:
    return import_module("psutil")


def _board_model(proc: Path, reader: Reader) -> str | None:
    """The board's name. Machines without a device tree are usual, so that its absence is not worth a note."""
    path = proc / "device-tree" / "model"
    try:
        return reader.attempt(lambda: text(path.read_bytes()))
    except NoAnswer as failed:
        if not isinstance(failed.cause, FileNotFoundError):
            reader.note(f"Board model: {failed.reason}")
        return None


def _cpu_model(around: Surroundings, reader: Reader) -> str | None:
    if around.platform == "linux":
        return reader.read(
            "CPU model name", lambda: _from_cpuinfo((around.proc / "cpuinfo").read_text("utf-8", "replace"))
        )
    return reader.read("CPU model name", lambda: text(platform.processor()))


def _from_cpuinfo(cpuinfo: str) -> str:
    """The model's name out of /proc/cpuinfo. Raises UnusableValue."""
    # On Arm the line "model name", where there is one, names the architecture only.
    cores = re.findall(r"^CPU implementer\s*:\s*(\S+)$.*?^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE | re.DOTALL)
    if cores:
        return ", ".join(f"{number} x {_arm_core(*core)}" for core, number in Counter(cores).items())
    found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        raise UnusableValue("/proc/cpuinfo has no line 'model name' or 'CPU part'")
    return text(found[1])


def _arm_core(implementer: str, part: str) -> str:
    known = _ARM_PARTS.get(part.lower()) if implementer.lower() == _ARM_LIMITED else None
    return known or f"Arm core {implementer}/{part}"


def _from_meminfo(proc: Path, key: str) -> int:
    """Bytes; the file gives KiB. Raises OSError, UnusableValue."""
    found = re.search(rf"^{key}:\s*(\d+) kB", (proc / "meminfo").read_text("utf-8", "replace"), re.MULTILINE)
    if found is None:
        raise UnusableValue(f"/proc/meminfo has no line {key!r}")
    return size(int(found[1]) * 1024)
