"""AMD GPUs on Linux by the driver amdgpu. The package pyamdgpuinfo is optional."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from exo.topology.capabilities import Accelerator
from exo.topology.contract import Findings, Surroundings
from exo.topology.probes.signs import amd_sign
from exo.topology.readings import NoAnswer, Reader, count, fraction, power, size, temperature, text


def probe_amd(around: Surroundings, reader: Reader) -> Findings:
    """Every GPU that pyamdgpuinfo counts, if the files show one.

    Without that sign the library is not loaded: it opens all graphics devices, those of other vendors too, and its
    native code trusts their answers.
    """
    sign = reader.read("AMD GPUs: signs of one", lambda: amd_sign(around)) if around.platform == "linux" else None
    if not sign:
        return Findings()
    library = _module(sign, reader)
    if library is None:
        return Findings()
    number = reader.read("AMD GPUs: number", lambda: count(library.detect_gpus()))
    if number == 0:
        reader.note(
            f"AMD GPUs: {sign} is there, but pyamdgpuinfo counts no GPU: it runs without the driver amdgpu, "
            "or this user may not open /dev/dri/renderD*"
        )
    return Findings(accelerators=tuple(_gpu(library, index, reader) for index in range(number or 0)))


def _module(sign: str, reader: Reader) -> Any:
    try:
        return reader.attempt(lambda: import_module("pyamdgpuinfo"))
    except NoAnswer as failed:
        missing = isinstance(failed.cause, ModuleNotFoundError) and failed.cause.name == "pyamdgpuinfo"
        reason = "is not installed" if missing else f"cannot be imported: {failed.reason}"
        reader.note(f"AMD GPUs: {sign} is there, but the Python package pyamdgpuinfo {reason}")
        return None


def _gpu(library: Any, index: int, reader: Reader) -> Accelerator:
    label = f"AMD GPU {index}"
    gpu = reader.read(f"{label}: all readings", lambda: library.get_gpu(index))
    if gpu is None:
        return Accelerator(vendor="amd")
    return Accelerator(
        vendor="amd",
        name=reader.read(f"{label}: name", lambda: text(gpu.name)),
        memory_total=reader.read(f"{label}: memory total", lambda: size(gpu.memory_info["vram_size"])),
        memory_used=reader.read(f"{label}: memory used", lambda: size(gpu.query_vram_usage(), low=0)),
        utilisation=reader.read(f"{label}: utilisation", lambda: fraction(gpu.query_load())),
        temperature=reader.read(f"{label}: temperature", lambda: temperature(gpu.query_temperature())),
        power=reader.read(f"{label}: power usage", lambda: power(gpu.query_power())),
    )
