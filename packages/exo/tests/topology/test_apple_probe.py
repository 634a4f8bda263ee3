"""macOS by a function that stands for its commands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from exo.topology import Accelerator, Findings, Machine, Reader, Surroundings
from exo.topology.probes.apple import SYSCTL, SYSTEM_PROFILER, probe_apple

MODEL = (SYSCTL, "-n", "hw.model")
BRAND = (SYSCTL, "-n", "machdep.cpu.brand_string")
DISPLAYS = (SYSTEM_PROFILER, "-json", "SPDisplaysDataType")
M2 = {
    "_name": "Apple M2 Max",
    "spdisplays_ndrvs": [{"_name": "Color LCD"}],
    "spdisplays_vendor": "sppci_vendor_Apple",
    "sppci_bus": "spdisplays_builtin",
    "sppci_cores": "30",
    "sppci_device_type": "spdisplays_gpu",
    "sppci_model": "Apple M2 Max",
}
UHD = {
    "_name": "kHW_Item",
    "sppci_model": "Intel UHD",
    "spdisplays_vendor": "Intel",
    "spdisplays_vram_shared": "1536 MB",
}
RADEON = {"_name": "Radeon Pro 5500M", "spdisplays_vendor": "sppci_vendor_amd", "spdisplays_vram": "8 GB"}
APPLE_GPU = Accelerator(vendor="apple", name="Apple M2 Max", unified_memory=True)


def not_told(index: int) -> str:
    return f"GPU {index}: memory used, utilisation, temperature and power usage: system_profiler does not tell them"


def mac(around: Surroundings, answers: Mapping[tuple[str, ...], str | Exception]) -> Surroundings:
    def run(command: Sequence[str], timeout: float) -> str:
        assert timeout > 0
        answer = answers[tuple(command)]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return dataclasses.replace(around, platform="darwin", run=run)


def answers(*displays: Any) -> dict[tuple[str, ...], str | Exception]:
    return {
        MODEL: "Mac14,6\n",
        BRAND: "Apple M2 Max\n",
        DISPLAYS: json.dumps({"SPDisplaysDataType": displays}),
    }


def test_an_apple_chip(around: Surroundings, reader: Reader) -> None:
    found = probe_apple(mac(around, answers(M2)), reader)
    assert found.machine == Machine(model="Mac14,6", cpu_model="Apple M2 Max")
    assert found.accelerators == (APPLE_GPU,)
    assert reader.unknown == [not_told(0)]


def test_an_intel_mac_with_two_gpus(around: Surroundings, reader: Reader) -> None:
    assert probe_apple(mac(around, answers(UHD, RADEON)), reader).accelerators == (
        Accelerator(vendor="intel", name="Intel UHD", memory_total=1536 * 2**20, unified_memory=True),
        Accelerator(vendor="amd", name="Radeon Pro 5500M", memory_total=8 * 2**30, unified_memory=False),
    )
    assert reader.unknown == [not_told(0), not_told(1)]


def test_older_systems_add_the_vendors_number(around: Surroundings, reader: Reader) -> None:
    entry = {**RADEON, "spdisplays_vendor": "ATI (0x1002)"}
    assert probe_apple(mac(around, answers(entry)), reader).accelerators[0].vendor == "ati"


@pytest.mark.parametrize(
    ("command", "what"), [(MODEL, "Computer model"), (BRAND, "CPU model name"), (DISPLAYS, "GPUs")]
)
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory"),
        subprocess.TimeoutExpired("command", 3),
        subprocess.CalledProcessError(1, "command"),
        RuntimeError("odd"),
    ],
)
def test_a_command_that_fails_loses_nothing_else(
    around: Surroundings, reader: Reader, command: tuple[str, ...], what: str, error: Exception
) -> None:
    found = probe_apple(mac(around, {**answers(M2), command: error}), reader)
    assert (found.machine.model is None) == (command == MODEL)
    assert (found.machine.cpu_model is None) == (command == BRAND)
    assert (found.accelerators == ()) == (command == DISPLAYS)
    told = [sentence for sentence in reader.unknown if sentence != not_told(0)]
    assert len(told) == 1
    assert told[0].startswith(f"{what}: ")
    assert str(error) in told[0]


@pytest.mark.parametrize("answer", ["", "no JSON", "[]", "{}", '{"SPDisplaysDataType": {}}'])
def test_an_answer_that_is_no_list_of_gpus(around: Surroundings, reader: Reader, answer: str) -> None:
    found = probe_apple(mac(around, {**answers(), DISPLAYS: answer}), reader)
    assert found.machine.cpu_model == "Apple M2 Max"
    assert found.accelerators == ()
    assert len(reader.unknown) == 1
    assert reader.unknown[0].startswith("GPUs: ")


def test_no_gpu_is_no_failure(around: Surroundings, reader: Reader) -> None:
    assert probe_apple(mac(around, answers()), reader).accelerators == ()
    assert reader.unknown == []


def test_a_broken_entry_loses_nothing_else(around: Surroundings, reader: Reader) -> None:
    found = probe_apple(mac(around, answers("odd", {}, M2)), reader)
    assert found.accelerators == (Accelerator(), Accelerator(), APPLE_GPU)
    assert reader.unknown == [
        "GPU 0: all readings: system_profiler gave a str, no table",
        "GPU 1: vendor: KeyError: 'spdisplays_vendor'",
        "GPU 1: name: KeyError: 'sppci_model'; KeyError: '_name'",
        not_told(1),
        "GPU 1: memory total: KeyError: 'spdisplays_vram'",
        not_told(2),
    ]


@pytest.mark.parametrize("vram", ["8", "8 GiB", "1,5 GB", "", None, 8, "0 MB"])
def test_a_size_that_is_not_understood(around: Surroundings, reader: Reader, vram: object) -> None:
    (gpu,) = probe_apple(mac(around, answers({**RADEON, "spdisplays_vram": vram})), reader).accelerators
    assert (gpu.name, gpu.memory_total, gpu.unified_memory) == ("Radeon Pro 5500M", None, None)
    assert reader.unknown[1].startswith("GPU 0: memory total: ")


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_no_command_is_run_elsewhere(around: Surroundings, reader: Reader, platform: str) -> None:
    ran: list[Sequence[str]] = []

    def run(command: Sequence[str], timeout: float) -> str:
        ran.append(command)
        return ""

    assert probe_apple(dataclasses.replace(around, platform=platform, run=run), reader) == Findings()
    assert ran == []
    assert reader.unknown == []
