"""AMD GPUs by a module that stands for pyamdgpuinfo."""

from __future__ import annotations

import dataclasses
import sys
from threading import Event
from types import ModuleType
from typing import Any

import pytest

from exo.topology import Accelerator, Findings, Reader, Surroundings
from exo.topology.probes.amd import probe_amd

NOT_SUPPORTED = RuntimeError("Unknown query failure (an AMDGPU call failed).")
EXPECTED = Accelerator(
    vendor="amd",
    name="AMD Radeon RX 7900 XTX",
    memory_total=24 * 2**30,
    memory_used=2**30,
    utilisation=0.5,
    temperature=52.5,
    power=90.0,
)
READINGS = {
    "query_vram_usage": ("memory_used", "memory used"),
    "query_load": ("utilisation", "utilisation"),
    "query_temperature": ("temperature", "temperature"),
    "query_power": ("power", "power usage"),
}


class FakeGpu:
    """As pyamdgpuinfo.GPUInfo: load from 0 to 1, bytes, degrees Celsius, watts."""

    def __init__(self) -> None:
        self.name: str | None = "AMD Radeon RX 7900 XTX"
        self.memory_info: dict[str, int | None] = {"vram_size": 24 * 2**30, "gtt_size": 1}

    def query_vram_usage(self) -> int:
        return 2**30

    def query_load(self) -> float:
        return 0.5

    def query_temperature(self) -> float:
        return 52.5

    def query_power(self) -> int:
        return 90


@pytest.fixture
def sign(around: Surroundings) -> str:
    device = around.sysfs / "class" / "drm" / "card0" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    return str(device.parent)


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu) -> Any:
    module: Any = ModuleType("pyamdgpuinfo")
    module.detect_gpus = lambda: 1
    module.get_gpu = lambda index: gpu
    monkeypatch.setitem(sys.modules, "pyamdgpuinfo", module)
    return module


def raising(error: BaseException) -> Any:
    def call(*args: object) -> Any:
        raise error

    return call


def test_one_gpu(around: Surroundings, reader: Reader, library: Any, sign: str) -> None:
    assert probe_amd(around, reader).accelerators == (EXPECTED,)
    assert reader.unknown == []


@pytest.mark.parametrize("query", READINGS)
@pytest.mark.parametrize("error", [NOT_SUPPORTED, SystemExit("out")])
def test_a_reading_that_fails_loses_nothing_else(
    around: Surroundings,
    reader: Reader,
    *,
    library: Any,
    gpu: FakeGpu,
    sign: str,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    error: BaseException,
) -> None:
    monkeypatch.setattr(gpu, query, raising(error))
    field, label = READINGS[query]
    (found,) = probe_amd(around, reader).accelerators
    for name in found.__struct_fields__:
        assert getattr(found, name) == (None if name == field else getattr(EXPECTED, name)), name
    assert reader.unknown == [f"AMD GPU 0: {label}: {type(error).__name__}: {error}"]


def test_a_reading_that_hangs_loses_nothing_else(
    around: Surroundings, *, library: Any, gpu: FakeGpu, sign: str, monkeypatch: pytest.MonkeyPatch, never: Event
) -> None:
    monkeypatch.setattr(gpu, "query_load", never.wait)
    reader = Reader(budget=60, limit=0.5)
    (found,) = probe_amd(around, reader).accelerators
    assert found.utilisation is None
    assert (found.name, found.power) == (EXPECTED.name, EXPECTED.power)
    assert reader.unknown == ["AMD GPU 0: utilisation: no answer within 0.5 seconds"]


def test_a_gpu_without_name_and_sizes(
    around: Surroundings, reader: Reader, library: Any, gpu: FakeGpu, sign: str
) -> None:
    gpu.name = None
    gpu.memory_info = {"vram_size": None, "gtt_size": None}
    (found,) = probe_amd(around, reader).accelerators
    assert (found.name, found.memory_total, found.memory_used) == (None, None, 2**30)
    assert reader.unknown == [
        "AMD GPU 0: name: the answer was None, not a text",
        "AMD GPU 0: memory total: the answer was None, not a number",
    ]


def test_a_gpu_that_cannot_be_opened_is_still_listed(
    around: Surroundings, reader: Reader, library: Any, gpu: FakeGpu, sign: str
) -> None:
    library.detect_gpus = lambda: 2
    library.get_gpu = lambda index: gpu if index else raising(RuntimeError("GPU id 0 not found"))()
    assert probe_amd(around, reader).accelerators == (Accelerator(vendor="amd"), EXPECTED)
    assert reader.unknown == ["AMD GPU 0: all readings: RuntimeError: GPU id 0 not found"]


def test_counting_is_refused(around: Surroundings, reader: Reader, library: Any, sign: str) -> None:
    library.detect_gpus = raising(OSError("Can't initialize AMDGPU driver"))
    assert probe_amd(around, reader) == Findings()
    assert reader.unknown == ["AMD GPUs: number: OSError: Can't initialize AMDGPU driver"]


def test_no_gpu_is_counted_though_one_is_there(around: Surroundings, reader: Reader, library: Any, sign: str) -> None:
    library.detect_gpus = lambda: 0
    assert probe_amd(around, reader) == Findings()
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith(f"AMD GPUs: {sign} is there, but pyamdgpuinfo counts no GPU: ")


def test_the_library_is_left_alone_without_a_sign(around: Surroundings, reader: Reader, library: Any) -> None:
    asked: list[int] = []
    library.detect_gpus = lambda: asked.append(1)
    assert probe_amd(around, reader) == Findings()
    assert asked == []
    assert reader.unknown == []


def test_other_systems_are_left_alone(around: Surroundings, reader: Reader, library: Any, sign: str) -> None:
    assert probe_amd(dataclasses.replace(around, platform="darwin"), reader) == Findings()
    assert reader.unknown == []


def test_no_package_and_no_gpu_is_usual(around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyamdgpuinfo", None)
    assert probe_amd(around, reader) == Findings()
    assert reader.unknown == []


def test_no_package_though_a_gpu_is_there(
    around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setitem(sys.modules, "pyamdgpuinfo", None)
    assert probe_amd(around, reader) == Findings()
    assert reader.unknown == [f"AMD GPUs: {sign} is there, but the Python package pyamdgpuinfo is not installed"]


def test_a_package_that_cannot_be_imported(
    around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setattr("exo.topology.probes.amd.import_module", raising(ImportError("libdrm.so.2: cannot open")))
    assert probe_amd(around, reader) == Findings()
    reason = "ImportError: libdrm.so.2: cannot open"
    assert reader.unknown == [
        f"AMD GPUs: {sign} is there, but the Python package pyamdgpuinfo cannot be imported: {reason}"
    ]
