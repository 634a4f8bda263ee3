"""NVIDIA GPUs by NVML. The package nvidia-ml-py (module pynvml) is optional."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from exo.topology.capabilities import Accelerator
from exo.topology.contract import Findings, Surroundings
from exo.topology.probes.signs import nvidia_sign
from exo.topology.readings import NoAnswer, Reader, count, fraction, power, size, temperature, text


def probe_nvidia(around: Surroundings, reader: Reader) -> Findings:
    """Every GPU that NVML counts. A machine without GPU, driver or package is usual and needs no note."""
    sign = reader.read("NVIDIA GPUs: signs of one", lambda: nvidia_sign(around))
    nvml = _module(sign, reader)
    if nvml is None or not _initialised(nvml, sign, reader):
        return Findings()
    try:
        number = reader.read("NVIDIA GPUs: number", lambda: count(nvml.nvmlDeviceGetCount()))
        if number == 0 and sign:
            reader.note(f"NVIDIA GPUs: {sign} is there, but NVML counts no GPU")
        return Findings(accelerators=tuple(_gpu(nvml, index, reader) for index in range(number or 0)))
    finally:
        # NVML must not be shut down under a call that is still in it.
        if not reader.hung:
            with suppress(NoAnswer):  # nothing remains unknown by that
                reader.attempt(lambda: nvml.nvmlShutdown())  # noqa: PLW0108 - looking it up may fail, too


def _module(sign: str | None, reader: Reader) -> Any:
    try:
        return reader.attempt(lambda: import_module("pynvml"))
    except NoAnswer as failed:
        missing = isinstance(failed.cause, ModuleNotFoundError) and failed.cause.name == "pynvml"
        if not missing:
            reader.note(f"NVIDIA GPUs: the package nvidia-ml-py cannot be imported: {failed.reason}")
        elif sign:
            reader.note(f"NVIDIA GPUs: {sign} is there, but the Python package nvidia-ml-py is not installed")
        return None


def _initialised(nvml: Any, sign: str | None, reader: Reader) -> bool:
    try:
        reader.attempt(lambda: nvml.nvmlInit())  # noqa: PLW0108 - looking it up may fail, too
    except NoAnswer as failed:
        usual = tuple(
            kind
            for kind in (getattr(nvml, f"NVMLError_{name}", None) for name in ("LibraryNotFound", "DriverNotLoaded"))
            if isinstance(kind, type)
        )
        if sign or not isinstance(failed.cause, usual):
            there = f"{sign} is there, but " if sign else ""
            reader.note(f"NVIDIA GPUs: {there}NVML does not start: {failed.reason}")
        return False
    return True


def _gpu(nvml: Any, index: int, reader: Reader) -> Accelerator:
    gpu = f"NVIDIA GPU {index}"
    handle = reader.read(f"{gpu}: all readings", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return Accelerator(vendor="nvidia")
    name = reader.read(f"{gpu}: name", lambda: text(nvml.nvmlDeviceGetName(handle)))
    # GPUs that share the machine's memory (GB10) answer "Not Supported" here.
    memory = reader.read(f"{gpu}: memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    total = used = None
    if memory is not None:
        total = reader.read(f"{gpu}: memory total", lambda: size(memory.total))
        used = reader.read(f"{gpu}: memory used", lambda: size(memory.used, low=0))
    return Accelerator(
        vendor="nvidia",
        name=name,
        memory_total=total,
        memory_used=used,
        utilisation=reader.read(
            f"{gpu}: utilisation", lambda: fraction(nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        ),
        temperature=reader.read(
            f"{gpu}: temperature",
            lambda: temperature(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        ),
        power=reader.read(f"{gpu}: power usage", lambda: power(nvml.nvmlDeviceGetPowerUsage(handle) / 1000)),
    )
