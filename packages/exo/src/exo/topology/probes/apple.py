"""Apple computers: names and GPUs from the commands of macOS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from exo.topology.capabilities import Accelerator, Machine
from exo.topology.contract import Findings, Surroundings
from exo.topology.readings import Reader, UnusableValue, size, text

SYSCTL = "/usr/sbin/sysctl"
SYSTEM_PROFILER = "/usr/sbin/system_profiler"
_SECONDS = 3.0  # system_profiler takes about one
_UNITS = {"MB": 2**20, "GB": 2**30, "TB": 2**40}


def probe_apple(around: Surroundings, reader: Reader) -> Findings:
    """On macOS the names of computer and CPU, and every GPU that system_profiler lists; elsewhere nothing."""
    if around.platform != "darwin":
        return Findings()

    def run(command: Sequence[str]) -> str:
        return around.run(command, _SECONDS)

    def ask(what: str, key: str) -> str | None:
        return reader.read(what, lambda: text(run([SYSCTL, "-n", key])), limit=_SECONDS)

    machine = Machine(
        model=ask("Computer model", "hw.model"),
        cpu_model=ask("CPU model name", "machdep.cpu.brand_string"),
    )
    entries = reader.read(
        "GPUs", lambda: _displays(run([SYSTEM_PROFILER, "-json", "SPDisplaysDataType"])), limit=_SECONDS
    )
    return Findings(
        machine=machine,
        accelerators=tuple(_gpu(f"GPU {index}", entry, reader) for index, entry in enumerate(entries or [])),
    )


def _displays(answer: str) -> list[Any]:
    """The graphics devices. Raises msgspec.DecodeError, UnusableValue."""
    entries = msgspec.json.decode(answer, type=dict[str, Any]).get("SPDisplaysDataType")
    if not isinstance(entries, list):
        raise UnusableValue("system_profiler gave no list SPDisplaysDataType")
    return entries


def _gpu(label: str, entry: Any, reader: Reader) -> Accelerator:
    if not isinstance(entry, dict):
        reader.note(f"{label}: all readings: system_profiler gave a {type(entry).__name__}, no table")
        return Accelerator()
    vendor = reader.read(f"{label}: vendor", lambda: _vendor(entry["spdisplays_vendor"]))
    name = reader.read(f"{label}: name", lambda: text(entry["sppci_model"]), lambda: text(entry["_name"]))
    reader.note(f"{label}: memory used, utilisation, temperature and power usage: system_profiler does not tell them")
    if vendor == "apple":  # it works in main memory, and system_profiler names no size
        return Accelerator(vendor=vendor, name=name, unified_memory=True)
    shared = "spdisplays_vram_shared" in entry
    key = "spdisplays_vram_shared" if shared else "spdisplays_vram"
    total = reader.read(f"{label}: memory total", lambda: _memory(entry[key]))
    return Accelerator(
        vendor=vendor, name=name, memory_total=total, unified_memory=shared if total is not None else None
    )


def _vendor(value: object) -> str:
    """`apple` out of `sppci_vendor_Apple` or `Apple (0x106b)`. Raises UnusableValue."""
    return text(text(value).removeprefix("sppci_vendor_").split("(")[0]).lower()


def _memory(value: object) -> int:
    """Bytes out of `1536 MB`. Raises UnusableValue."""
    found = re.fullmatch(r"(\d+) ?(MB|GB|TB)", text(value))
    if found is None:
        raise UnusableValue(f"the answer was {value!r}, not a size in MB, GB or TB")
    return size(int(found[1]) * _UNITS[found[2]])
