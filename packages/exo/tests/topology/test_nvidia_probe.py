"""NVIDIA GPUs by a module that stands for pynvml."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from threading import Event
from types import ModuleType, SimpleNamespace

import pytest

from exo.topology import Accelerator, Findings, Reader, Surroundings
from exo.topology.probes.nvidia import probe_nvidia

READINGS = {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetMemoryInfo": "memory",
    "nvmlDeviceGetUtilizationRates": "utilisation",
    "nvmlDeviceGetTemperature": "temperature",
    "nvmlDeviceGetPowerUsage": "power usage",
}
FIELDS = {
    "nvmlDeviceGetName": {"name"},
    "nvmlDeviceGetMemoryInfo": {"memory_total", "memory_used"},
    "nvmlDeviceGetUtilizationRates": {"utilisation"},
    "nvmlDeviceGetTemperature": {"temperature"},
    "nvmlDeviceGetPowerUsage": {"power"},
}


class NVMLError(Exception):
    """The classes below are named as in pynvml."""


class NVMLError_NotSupported(NVMLError):  # noqa: N801 - the vendor's name
    pass


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801 - the vendor's name
    pass


class NVMLError_DriverNotLoaded(NVMLError):  # noqa: N801 - the vendor's name
    pass


def expected(index: int) -> Accelerator:
    return Accelerator(
        vendor="nvidia",
        name=f"NVIDIA L4 {index}",
        memory_total=24 * 2**30,
        memory_used=index * 2**30,
        utilisation=0.25,
        temperature=41.0,
        power=72.5,
    )


class FakeNvml(ModuleType):
    """Two GPUs; a handle is its index. `calls` are the functions that were called."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError_LibraryNotFound = NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = NVMLError_DriverNotLoaded

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.calls: list[str] = []
        self.answer("nvmlInit", lambda: None)
        self.answer("nvmlShutdown", lambda: None)
        self.answer("nvmlDeviceGetCount", lambda: 2)
        self.answer("nvmlDeviceGetHandleByIndex", lambda index: SimpleNamespace(index=index))
        self.answer("nvmlDeviceGetName", lambda gpu: f"NVIDIA L4 {gpu.index}")
        self.answer(
            "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(total=24 * 2**30, used=gpu.index * 2**30, free=0)
        )
        self.answer("nvmlDeviceGetUtilizationRates", lambda gpu: SimpleNamespace(gpu=25, memory=3))
        self.answer("nvmlDeviceGetTemperature", lambda gpu, sensor: 41)
        self.answer("nvmlDeviceGetPowerUsage", lambda gpu: 72_500)

    def answer(self, name: str, function: Callable[..., object]) -> None:
        def call(*args: object) -> object:
            self.calls.append(name)
            return function(*args)

        setattr(self, name, call)

    def fail(self, name: str, error: BaseException) -> None:
        def function(*args: object) -> object:
            raise error

        self.answer(name, function)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    module = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


@pytest.fixture
def sign(around: Surroundings) -> str:
    (around.dev / "nvidia0").touch()
    return str(around.dev / "nvidia0")


class BrokenImport(importlib.abc.MetaPathFinder):
    """Makes the import of pynvml raise `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pynvml":
            raise self.error
        return None


def break_import(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenImport(error), *sys.meta_path])


def test_two_gpus(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    assert probe_nvidia(around, reader).accelerators == (expected(0), expected(1))
    assert reader.unknown == []
    assert nvml.calls[0] == "nvmlInit"
    assert nvml.calls[-1] == "nvmlShutdown"


def test_older_versions_give_names_as_bytes(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    nvml.answer("nvmlDeviceGetName", lambda gpu: b"Tesla T4")
    assert [gpu.name for gpu in probe_nvidia(around, reader).accelerators] == ["Tesla T4", "Tesla T4"]


@pytest.mark.parametrize("function", READINGS)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NVMLError_NotSupported("Not Supported"), "Not Supported"),
        (RuntimeError("torn"), "RuntimeError: torn"),
        (SystemExit("out"), "SystemExit: out"),
    ],
)
def test_a_reading_that_fails_loses_nothing_else(
    around: Surroundings, reader: Reader, *, nvml: FakeNvml, function: str, error: BaseException, reason: str
) -> None:
    nvml.fail(function, error)
    for index, gpu in enumerate(probe_nvidia(around, reader).accelerators):
        for field in gpu.__struct_fields__:
            wanted = None if field in FIELDS[function] else getattr(expected(index), field)
            assert getattr(gpu, field) == wanted, field
    assert reader.unknown == [f"NVIDIA GPU {index}: {READINGS[function]}: {reason}" for index in (0, 1)]


@pytest.mark.parametrize("function", READINGS)
def test_a_function_that_an_older_version_lacks(
    around: Surroundings, reader: Reader, nvml: FakeNvml, function: str
) -> None:
    delattr(nvml, function)
    assert len(probe_nvidia(around, reader).accelerators) == 2
    assert len(reader.unknown) == 2
    assert reader.unknown[0].startswith(f"NVIDIA GPU 0: {READINGS[function]}: AttributeError: ")


@pytest.mark.slow
@pytest.mark.parametrize("function", READINGS)
def test_a_reading_that_hangs_loses_nothing_else(
    around: Surroundings, nvml: FakeNvml, never: Event, function: str
) -> None:
    nvml.answer("nvmlDeviceGetCount", lambda: 1)
    nvml.answer(function, lambda *args: never.wait())
    reader = Reader(budget=60, limit=0.5)
    (gpu,) = probe_nvidia(around, reader).accelerators
    for field in gpu.__struct_fields__:
        wanted = None if field in FIELDS[function] else getattr(expected(0), field)
        assert getattr(gpu, field) == wanted, field
    assert reader.unknown == [f"NVIDIA GPU 0: {READINGS[function]}: no answer within 0.5 seconds"]
    assert "nvmlShutdown" not in nvml.calls  # a thread is still inside the library


def test_values_that_nvml_means_as_not_available(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    nvml.answer("nvmlDeviceGetCount", lambda: 1)
    nvml.answer("nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(total=0, used=2**64 - 1))
    nvml.answer("nvmlDeviceGetUtilizationRates", lambda gpu: SimpleNamespace(gpu=2**32 - 1))
    (gpu,) = probe_nvidia(around, reader).accelerators
    assert (gpu.memory_total, gpu.memory_used, gpu.utilisation) == (None, None, None)
    assert gpu.temperature == 41.0
    assert [sentence.split(": ")[1] for sentence in reader.unknown] == ["memory total", "memory used", "utilisation"]


def test_a_gpu_that_is_lost_is_still_listed(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    def handle(index: int) -> object:
        if index == 0:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(index=index)

    nvml.answer("nvmlDeviceGetHandleByIndex", handle)
    assert probe_nvidia(around, reader).accelerators == (Accelerator(vendor="nvidia"), expected(1))
    assert reader.unknown == ["NVIDIA GPU 0: all readings: GPU is lost"]


def test_a_number_that_cannot_be_had(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    nvml.fail("nvmlDeviceGetCount", NVMLError("Unknown Error"))
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == ["NVIDIA GPUs: number: Unknown Error"]
    assert nvml.calls[-1] == "nvmlShutdown"


def test_a_shutdown_that_fails_leaves_nothing_unknown(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    nvml.fail("nvmlShutdown", NVMLError("Uninitialized"))
    assert len(probe_nvidia(around, reader).accelerators) == 2
    assert reader.unknown == []


def test_no_gpu_is_counted(around: Surroundings, reader: Reader, nvml: FakeNvml) -> None:
    nvml.answer("nvmlDeviceGetCount", lambda: 0)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == []


def test_no_gpu_is_counted_though_one_is_there(around: Surroundings, reader: Reader, nvml: FakeNvml, sign: str) -> None:
    nvml.answer("nvmlDeviceGetCount", lambda: 0)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == [f"NVIDIA GPUs: {sign} is there, but NVML counts no GPU"]


def test_no_package_and_no_gpu_is_usual(around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == []


def test_no_package_though_a_gpu_is_there(
    around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == [f"NVIDIA GPUs: {sign} is there, but the Python package nvidia-ml-py is not installed"]


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libc is too old"),
        ModuleNotFoundError("No module named 'other'", name="other"),
        OSError("disk"),
        SyntaxError("x"),
    ],
)
def test_a_package_that_cannot_be_imported(
    around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_import(monkeypatch, error)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == [
        f"NVIDIA GPUs: the package nvidia-ml-py cannot be imported: {type(error).__name__}: {error}"
    ]


@pytest.mark.parametrize("error", [NVMLError_LibraryNotFound("not found"), NVMLError_DriverNotLoaded("no driver")])
def test_no_driver_and_no_gpu_is_usual(around: Surroundings, reader: Reader, nvml: FakeNvml, error: NVMLError) -> None:
    nvml.fail("nvmlInit", error)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == []
    assert nvml.calls == ["nvmlInit"]


def test_no_driver_though_a_gpu_is_there(around: Surroundings, reader: Reader, nvml: FakeNvml, sign: str) -> None:
    nvml.fail("nvmlInit", NVMLError_LibraryNotFound("NVML Shared Library Not Found"))
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == [f"NVIDIA GPUs: {sign} is there, but NVML does not start: NVML Shared Library Not Found"]


@pytest.mark.parametrize("error", [NVMLError("RM has detected an NVML/RM version mismatch."), MemoryError()])
def test_any_other_failure_to_start_is_told(
    around: Surroundings, reader: Reader, nvml: FakeNvml, error: Exception
) -> None:
    nvml.fail("nvmlInit", error)
    assert probe_nvidia(around, reader) == Findings()
    assert reader.unknown == [f"NVIDIA GPUs: NVML does not start: {str(error) or 'MemoryError'}"]


def test_a_module_of_that_name_that_is_something_else(
    around: Surroundings, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", ModuleType("pynvml"))
    assert probe_nvidia(around, reader) == Findings()
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith("NVIDIA GPUs: NVML does not start: AttributeError: ")
