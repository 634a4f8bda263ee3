"""Boards are folders of files here."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from board_tree import DMC, NPU_LOAD, POLICIES, RK3588_NPU, THERMAL, put, running_rk3576, running_rk3588
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_rkllm.telemetry import Telemetry, read_telemetry


def test_everything_of_an_rk3588_is_read(tmp_path: Path) -> None:
    assert read_telemetry(running_rk3588(tmp_path)) == Telemetry(
        npu_load={"0": 0.63, "1": 0.05, "2": 0.0},
        npu_frequency=1_000_000_000,
        npu_frequency_max=1_000_000_000,
        ddr_frequency=2_112_000_000,
        temperatures={
            "soc-thermal": 61.923,
            "bigcore0-thermal": 63.846,
            "bigcore1-thermal": 62.884,
            "littlecore-thermal": 61.923,
            "npu-thermal": 60.076,
        },
        throttled={"cpufreq-cpu0": False, "cpufreq-cpu4": True, "devfreq-fb000000.gpu": False},
        governors={
            "npu": "rknpu_ondemand",
            "dmc": "dmc_ondemand",
            "policy0": "ondemand",
            "policy4": "performance",
            "policy6": "performance",
        },
        driver="0.9.8",
    )


def test_an_rk3576_without_debugfs_tells_what_everybody_may_know(tmp_path: Path) -> None:
    assert read_telemetry(running_rk3576(tmp_path)) == Telemetry(
        npu_load={"0": 0.12, "1": 0.99},
        npu_frequency=300_000_000,
        npu_frequency_max=950_000_000,
        ddr_frequency=None,
        temperatures={"soc-thermal": 48.5, "npu-thermal": -1.25},
        throttled={"thermal-cpufreq-0": False, "thermal-cpufreq-1": False},
        governors={"npu": "performance", "policy0": "schedutil", "policy4": "schedutil"},
        driver="0.9.7",
    )


@pytest.mark.parametrize("root", ["/nowhere/at/all", "/dev/null", "\0"])
def test_where_there_is_no_board_nothing_is_known(root: str) -> None:
    assert read_telemetry(Path(root)) == Telemetry()


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("NPU load:  15%\n", {"0": 0.15}),
        ("NPU load:  Core0: 100%, Core1:  7%,\n", {"0": 1.0, "1": 0.07}),
        ("NPU load:  Core0: 99%, Core1: 99%, Core2: 429496%,\n", {"0": 0.99, "1": 0.99, "2": 1.0}),
        ("NPU load:  Core0: -1%, Core1: 4%,\n", {"1": 0.04}),
        ("NPU load:\n", {}),
        ("Core: 5%\n", {}),
    ],
)
def test_the_drivers_load(tmp_path: Path, text: str, load: dict[str, float]) -> None:
    put(tmp_path, NPU_LOAD, text)
    assert read_telemetry(tmp_path).npu_load == load


def test_debugfs_counts_more_than_what_everybody_may_read(tmp_path: Path) -> None:
    put(tmp_path, "proc/rknpu/load", "NPU load:  1%\n")
    put(tmp_path, f"{RK3588_NPU}/load", "2@1000000000Hz\n")
    assert read_telemetry(tmp_path).npu_load == {"0": 0.01}
    put(tmp_path, NPU_LOAD, "NPU load:  3%\n")
    assert read_telemetry(tmp_path).npu_load == {"0": 0.03}


@pytest.mark.parametrize(
    ("text", "load"), [("23@1000000000Hz\n", {"all": 0.23}), ("0@1000000000Hz\n", {}), ("23\n", {}), ("@1Hz\n", {})]
)
def test_devfreqs_load_counts_where_it_says_something(tmp_path: Path, text: str, load: dict[str, float]) -> None:
    put(tmp_path, f"{RK3588_NPU}/load", text)
    assert read_telemetry(tmp_path).npu_load == load


@pytest.mark.parametrize(
    ("available", "limit", "highest"),
    [
        ("300000000 1000000000 600000000\n", "600000000\n", 1_000_000_000),
        ("", "900000000\n", 900_000_000),
        ("", "0\n", None),
        ("fast faster\n", "fastest\n", None),
    ],
)
def test_the_highest_frequency_is_that_of_the_chip(
    tmp_path: Path, available: str, limit: str, highest: int | None
) -> None:
    put(tmp_path, f"{RK3588_NPU}/available_frequencies", available)
    put(tmp_path, f"{RK3588_NPU}/max_freq", limit)
    assert read_telemetry(tmp_path).npu_frequency_max == highest


def test_other_devices_with_frequencies_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/devfreq/fb000000.gpu/cur_freq", "300000000\n")
    put(tmp_path, "sys/class/devfreq/fb000000.gpu/governor", "simple_ondemand\n")
    assert read_telemetry(tmp_path) == Telemetry()


def zone(root: Path, number: int, name: str, temperature: str) -> None:
    put(root, f"{THERMAL}/thermal_zone{number}/type", f"{name}\n")
    put(root, f"{THERMAL}/thermal_zone{number}/temp", f"{temperature}\n")


def cooling(root: Path, number: int, name: str, state: str) -> None:
    put(root, f"{THERMAL}/cooling_device{number}/type", f"{name}\n")
    put(root, f"{THERMAL}/cooling_device{number}/cur_state", f"{state}\n")


def test_of_zones_with_one_name_the_hottest_counts(tmp_path: Path) -> None:
    for number, temperature in enumerate(("-5000", "41000", "39000")):
        zone(tmp_path, number, "acpitz", temperature)
    assert read_telemetry(tmp_path).temperatures == {"acpitz": 41.0}


@pytest.mark.parametrize("temperature", ["", "hot", "--1", "-274000", "300001", "9" * 400, "4e4"])
def test_a_temperature_that_cannot_be_is_not_known(tmp_path: Path, temperature: str) -> None:
    zone(tmp_path, 0, "soc-thermal", temperature)
    zone(tmp_path, 1, "npu-thermal", "45000")
    assert read_telemetry(tmp_path).temperatures == {"npu-thermal": 45.0}


@pytest.mark.parametrize("name", ["", "\x1b[31mred", "z" * 65, "zoné", "two\nlines"])
def test_a_zone_without_a_proper_name_is_left_out(tmp_path: Path, name: str) -> None:
    zone(tmp_path, 0, name, "45000")
    assert read_telemetry(tmp_path).temperatures == {}


@pytest.mark.parametrize("states", [("0", "1"), ("1", "0"), ("2", "3")])
def test_of_devices_with_one_name_any_that_holds_back_counts(tmp_path: Path, states: tuple[str, ...]) -> None:
    for number, state in enumerate(states):
        cooling(tmp_path, number, "Processor", state)
    assert read_telemetry(tmp_path).throttled == {"Processor": True}


@pytest.mark.parametrize("name", ["pwm-fan", "Fan", "cpu-fan", "LCD", "TCC Offset", "bq25700-charger"])
def test_what_does_not_slow_a_chip_down_is_no_throttling(tmp_path: Path, name: str) -> None:
    cooling(tmp_path, 0, name, "2")
    assert read_telemetry(tmp_path).throttled == {}


@pytest.mark.parametrize(
    "name", ["thermal-cpufreq-1", "cpufreq-cpu4", "thermal-devfreq-0", "devfreq-fdab0000.npu", "thermal-idle-0"]
)
def test_what_slows_a_chip_down_is_throttling(tmp_path: Path, name: str) -> None:
    cooling(tmp_path, 0, name, "1")
    assert read_telemetry(tmp_path).throttled == {name: True}
    cooling(tmp_path, 0, name, "0")
    assert read_telemetry(tmp_path).throttled == {name: False}
    cooling(tmp_path, 0, name, "-1")
    assert read_telemetry(tmp_path).throttled == {}


def test_there_is_an_end_to_the_entries(tmp_path: Path) -> None:
    for number in range(200):
        zone(tmp_path, number, f"zone{number}", "45000")
    assert len(read_telemetry(tmp_path).temperatures) == 64


@settings(max_examples=60, deadline=None, database=None)
@given(
    content=st.binary(max_size=60)
    | st.sampled_from([b"9" * 5000, b"NPU load: Core0: %", b"5%" * 99, b"\xd9\xa3", b"1\x002\n", b"-", b"@Hz"])
)
def test_no_content_of_any_file_breaks_it(content: bytes) -> None:
    files = (
        NPU_LOAD,
        "proc/rknpu/load",
        "sys/kernel/debug/rknpu/version",
        *(f"{RK3588_NPU}/{name}" for name in ("load", "cur_freq", "max_freq", "available_frequencies", "governor")),
        f"{DMC}/cur_freq",
        f"{DMC}/governor",
        f"{POLICIES}/policy0/scaling_governor",
        f"{THERMAL}/thermal_zone0/temp",
        f"{THERMAL}/cooling_device0/cur_state",
    )
    with TemporaryDirectory() as folder:
        root = running_rk3588(Path(folder))
        for name in files:
            put(root, name, content)
        told = read_telemetry(root)
        for folder_name in ("thermal_zone0", "cooling_device0"):
            put(root, f"{THERMAL}/{folder_name}/type", content)
        names = {**read_telemetry(root).temperatures, **read_telemetry(root).throttled}
    assert all(0 <= load <= 1 for load in told.npu_load.values())
    assert told.temperatures["npu-thermal"] == 60.076
    assert all(name.isascii() and name.isprintable() for name in (*names, *told.governors.values()))
