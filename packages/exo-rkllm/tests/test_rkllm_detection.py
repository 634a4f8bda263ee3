"""Boards are folders of files here."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo.types import ConfigurationError
from exo_rkllm import detection
from exo_rkllm.detection import Board, cpu_classes, detect_rockchip_npu, read_board, target_platform

MARKER = b"\x7fELF\0RKLLM SDK (version: 1.2.3 | target: Linux | build: 0)\0"
DEBUG_VERSION = "sys/kernel/debug/rknpu/version"
MODULE_VERSION = "sys/module/rknpu/version"
ROCK_5B = ("radxa,rock-5b", "rockchip,rk3588")


def put(root: Path, name: str, content: str | bytes = "") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def device_tree(root: Path, model: str, *names: str) -> None:
    put(root, "proc/device-tree/model", f"{model}\0")
    put(root, "proc/device-tree/compatible", "".join(f"{name}\0" for name in names))


def cpus(root: Path, *values: int, file: str = "cpu_capacity") -> None:
    for number, value in enumerate(values):
        put(root, f"sys/devices/system/cpu/cpu{number}/{file}", f"{value}\n")
    put(root, "sys/devices/system/cpu/cpuidle/current_driver", "psci_idle\n")


def library(root: Path) -> Path:
    return put(root, "usr/lib/librkllmrt.so", MARKER)


def rock_5b(root: Path, version: str = "0.9.8") -> Path:
    """The vendor's kernel, everything readable."""
    device_tree(root, "Radxa ROCK 5B", *ROCK_5B)
    put(root, DEBUG_VERSION, f"RKNPU driver: v{version}\n")
    put(root, MODULE_VERSION, f"{version}\n")
    put(root, "sys/class/drm/renderD128/device/uevent", "DRIVER=mali\n")
    put(root, "sys/class/drm/renderD129/device/uevent", "DRIVER=RKNPU\nOF_NAME=npu\n")
    put(root, "dev/dri/renderD128")
    put(root, "dev/dri/renderD129")
    put(root, "sys/class/devfreq/fdab0000.npu/load", "0@1000000000Hz\n")
    cpus(root, 530, 530, 530, 530, 1003, 1003, 1024, 1024)
    library(root)
    return root


def orange_pi_5(root: Path) -> Path:
    """debugfs is not for this user: what cannot be read stands for it."""
    device_tree(root, "Orange Pi 5", "xunlong,orangepi-5", "rockchip,rk3588s")
    (root / DEBUG_VERSION).mkdir(parents=True)
    put(root, MODULE_VERSION, "0.9.6\n")
    library(root)
    return root


def rk3576_mainline(root: Path) -> Path:
    device_tree(root, "Radxa ROCK 4D", "radxa,rock-4d", "rockchip,rk3576")
    put(root, "proc/modules", "rocket 40960 0 - Live 0x0\ngpu_sched 49152 1 rocket, Live 0x0\n")
    put(root, "sys/class/accel/accel0/device/uevent", "DRIVER=rocket\n")
    put(root, "dev/accel/accel0")
    cpus(root, 485, 485, 485, 485, 1024, 1024, 1024, 1024)
    library(root)
    return root


def rk3566(root: Path) -> Path:
    device_tree(root, "Quartz64 A", "pine64,quartz64-a", "rockchip,rk3566")
    library(root)
    return root


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A home without a library."""
    return {"HOME": str(tmp_path / "home")}


def test_everything_of_a_board_is_read(tmp_path: Path, env: dict[str, str]) -> None:
    assert read_board(env, rock_5b(tmp_path)) == Board(
        soc="rk3588",
        chip="rk3588",
        model="Radxa ROCK 5B",
        driver="0.9.8",
        flavour="rknpu",
        library=tmp_path / "usr/lib/librkllmrt.so",
        library_version="1.2.3",
        big_cpus=(4, 5, 6, 7),
        little_cpus=(0, 1, 2, 3),
        problems=(),
    )


def test_the_root_comes_from_the_environment(tmp_path: Path, env: dict[str, str]) -> None:
    rock_5b(tmp_path)
    assert read_board({**env, "RKLLM_ROOT": str(tmp_path)}) == read_board(env, tmp_path)


def test_what_debugfs_hides_is_read_elsewhere(tmp_path: Path, env: dict[str, str]) -> None:
    board = read_board(env, orange_pi_5(tmp_path))
    assert (board.soc, board.chip, board.driver, board.flavour) == ("rk3588s", "rk3588", "0.9.6", "rknpu")
    assert (board.big_cpus, board.little_cpus) == ((4, 5, 6, 7), (0, 1, 2, 3)), "the usual numbering of the chip"
    assert len(board.problems) == 1
    assert "RKNPU 0.9.6 is too old" in board.problems[0]


def test_a_debugfs_that_is_closed_to_this_user_is_no_error(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rock_5b(tmp_path)
    look, closed = os.stat, str(tmp_path / "sys/kernel/debug/")

    def refuse(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path).startswith(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)  # root may look everywhere
        board = read_board(env, tmp_path)
    assert (board.driver, board.flavour, board.problems) == ("0.9.8", "rknpu", ())


@pytest.mark.parametrize(("version", "warned"), [("0.8.2", True), ("0.9.6", True), ("0.9.7", False), ("0.10.0", False)])
def test_old_drivers_are_named(tmp_path: Path, env: dict[str, str], version: str, *, warned: bool) -> None:
    assert bool(read_board(env, rock_5b(tmp_path, version)).problems) is warned


def test_mainlines_driver_is_not_usable(tmp_path: Path, env: dict[str, str]) -> None:
    board = read_board(env, rk3576_mainline(tmp_path))
    assert (board.chip, board.flavour, board.driver, board.has_npu) == ("rk3576", "rocket", None, False)
    assert len(board.problems) == 1
    assert "rocket" in board.problems[0]
    assert "vendor's kernel" in board.problems[0]


@pytest.mark.parametrize("soc", ["rk3566", "rk3568", "rk3399", "rk3328", "rv1126"])
def test_other_chips_are_recognised(tmp_path: Path, env: dict[str, str], soc: str) -> None:
    device_tree(tmp_path, "Some board", "maker,board", f"rockchip,{soc}")
    library(tmp_path)
    board = read_board(env, tmp_path)
    assert (board.soc, board.chip, board.has_npu) == (soc, None, False)
    assert len(board.problems) == 1
    assert f"The chip {soc} has no NPU" in board.problems[0]


@pytest.mark.parametrize(
    ("names", "soc", "chip"),
    [
        (("rockchip,rk3588s-orangepi-5", "rockchip,rk3588"), "rk3588", "rk3588"),
        (("radxa,e52c", "rockchip,rk3582", "rockchip,rk3588s"), "rk3588s", "rk3588"),
        (("armsom,sige5", "rockchip,rk3576"), "rk3576", "rk3576"),
        (("maker,board", "rockchip,rk3576j"), "rk3576j", "rk3576"),
        (("rockchip,rk3562-evb", "rockchip,rk3562"), "rk3562", "rk3562"),
        (("rockchip,rv1126b-evb1-v11", "rockchip,rv1126b"), "rv1126b", "rv1126b"),
        (("maker,board", "rockchip,rk35888"), "rk35888", None),
        (("raspberrypi,5-model-b", "brcm,bcm2712"), None, None),
    ],
)
def test_the_chip_is_told_by_the_device_tree(
    tmp_path: Path, env: dict[str, str], names: tuple[str, ...], soc: str | None, chip: str | None
) -> None:
    device_tree(tmp_path, "Some board", *names)
    board = read_board(env, tmp_path)
    assert (board.soc, board.chip) == (soc, chip)


def test_a_pc_is_no_board(tmp_path: Path, env: dict[str, str]) -> None:
    cpus(tmp_path, 3_000_000, 3_000_000, file="cpufreq/cpuinfo_max_freq")
    board = read_board(env, tmp_path)
    no_board, no_library = board.problems
    assert board == Board(problems=board.problems)
    assert "no Rockchip board" in no_board
    assert "RKLLM_LIB" in no_library


def test_a_driver_that_cannot_be_seen_counts_as_usable(tmp_path: Path, env: dict[str, str]) -> None:
    device_tree(tmp_path, "Radxa ROCK 5B", *ROCK_5B)
    board = read_board(env, tmp_path)
    assert (board.flavour, board.has_npu) == (None, True)
    assert "No driver of the NPU" in board.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "flavour"),
    [
        ("proc/modules", "rknpu 98304 0 - Live 0x0\n", "rknpu"),
        ("proc/modules", "my_rknpu 1 0 - Live 0x0\n", None),
        ("sys/module/rknpu/refcnt", "0", "rknpu"),
        ("sys/bus/platform/drivers/RKNPU/bind", "", "rknpu"),
        ("sys/class/devfreq/27700000.npu/governor", "rknpu_ondemand", "rknpu"),
        ("sys/class/devfreq/fb000000.gpu/governor", "simple_ondemand", None),
        ("sys/class/drm/renderD129/device/uevent", "OF_NAME=npu\nDRIVER=RKNPU\n", "rknpu"),
        ("sys/class/drm/renderD128/device/uevent", "DRIVER=panthor\n", None),
        ("sys/module/rocket/refcnt", "0", "rocket"),
        ("sys/bus/platform/drivers/rocket/bind", "", "rocket"),
        ("sys/class/accel/accel0/device/uevent", "DRIVER=intel_vpu\n", None),
    ],
)
def test_each_sign_of_a_driver_counts(
    tmp_path: Path, env: dict[str, str], name: str, content: str, flavour: str | None
) -> None:
    device_tree(tmp_path, "Radxa ROCK 5B", *ROCK_5B)
    put(tmp_path, name, content)
    assert read_board(env, tmp_path).flavour == flavour


def test_a_link_names_the_driver_too(tmp_path: Path, env: dict[str, str]) -> None:
    device_tree(tmp_path, "Radxa ROCK 5B", *ROCK_5B)
    device = tmp_path / "sys/class/accel/accel0/device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to("../../../bus/platform/drivers/rocket")
    assert read_board(env, tmp_path).flavour == "rocket"


def test_whoever_holds_the_device_counts_more_than_a_module(tmp_path: Path, env: dict[str, str]) -> None:
    rk3576_mainline(tmp_path)
    put(tmp_path, "sys/module/rknpu/refcnt", "0\n")
    assert read_board(env, tmp_path).flavour == "rocket"
    put(tmp_path, MODULE_VERSION, "0.9.8\n")
    assert read_board(env, tmp_path).flavour == "rocket"
    (tmp_path / "sys/class/accel/accel0/device/uevent").unlink()
    assert read_board(env, tmp_path).flavour == "rknpu"


def test_a_driver_without_a_version_is_reported(tmp_path: Path, env: dict[str, str]) -> None:
    device_tree(tmp_path, "Radxa ROCK 5B", *ROCK_5B)
    put(tmp_path, "sys/module/rknpu/version", "unknown\n")
    board = read_board(env, tmp_path)
    assert board.driver is None
    assert "version of the NPU's driver is not known" in board.problems[0]


def test_a_device_that_cannot_be_opened_is_reported(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rock_5b(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open everything
    (problem,) = read_board(env, tmp_path).problems
    assert str(tmp_path / "dev/dri/renderD129") in problem
    assert "may not be opened" in problem
    (tmp_path / "dev/dri/renderD129").unlink()
    (problem,) = read_board(env, tmp_path).problems
    assert "missing" in problem


def test_a_library_that_cannot_be_read_is_reported(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rock_5b(tmp_path)

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    board = read_board(env, tmp_path)
    assert (board.library, board.library_version) == (tmp_path / "usr/lib/librkllmrt.so", None)
    assert any("librkllmrt.so" in problem for problem in board.problems)


@pytest.mark.parametrize(
    ("values", "file", "big"),
    [
        ((530, 530, 530, 530, 1003, 1003, 1024, 1024), "cpu_capacity", (4, 5, 6, 7)),
        ((1024, 1024, 485, 485), "cpu_capacity", (0, 1)),
        ((1024, 1024, 1024, 1024), "cpu_capacity", ()),
        ((1_800_000,) * 4 + (2_256_000,) * 2 + (2_400_000,) * 2, "cpufreq/cpuinfo_max_freq", (4, 5, 6, 7)),
        ((2_016_000,) * 4 + (2_208_000,) * 4, "cpufreq/cpuinfo_max_freq", (4, 5, 6, 7)),
        ((2_016_000,) * 4, "cpufreq/cpuinfo_max_freq", ()),
    ],
)
def test_big_cpus_are_told_by_what_the_kernel_says(
    tmp_path: Path, values: tuple[int, ...], file: str, big: tuple[int, ...]
) -> None:
    cpus(tmp_path, *values, file=file)
    little = tuple(number for number in range(len(values)) if number not in big) if big else ()
    assert cpu_classes(tmp_path) == (big, little)


def test_capacity_counts_more_than_frequency(tmp_path: Path) -> None:
    cpus(tmp_path, 2_400_000, 2_400_000, 1_000_000, 1_000_000, file="cpufreq/cpuinfo_max_freq")
    cpus(tmp_path, 485, 485, 1024, 1024)
    assert cpu_classes(tmp_path) == ((2, 3), (0, 1))


def test_equal_capacities_are_believed(tmp_path: Path) -> None:
    cpus(tmp_path, *[1024] * 8)
    assert cpu_classes(tmp_path, "rk3588") == ((), ())


def test_the_usual_numbering_is_taken_only_for_cpus_that_are_there(tmp_path: Path) -> None:
    assert cpu_classes(tmp_path, "rk3576") == ((4, 5, 6, 7), (0, 1, 2, 3))
    assert cpu_classes(tmp_path, "rk3562") == ((), ())
    cpus(tmp_path, 1, 1, 1, 1, file="online")
    assert cpu_classes(tmp_path, "rk3576") == ((), ())


def detect(monkeypatch: pytest.MonkeyPatch, root: Path, **env: str) -> str | None:
    for name in ("RKLLM_LIB", "RKLLAMA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(root / "home"), "RKLLM_ROOT": str(root), **env}.items():
        monkeypatch.setenv(name, value)
    return detect_rockchip_npu()


def test_the_detector_names_the_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect(monkeypatch, orange_pi_5(tmp_path)) == "rk3588s"


@pytest.mark.parametrize("board", [rk3576_mainline, rk3566])
def test_the_detector_passes_where_the_npu_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: object
) -> None:
    assert callable(board)
    assert detect(monkeypatch, board(tmp_path)) is None


def test_the_detector_passes_without_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rock_5b(tmp_path)
    (tmp_path / "usr/lib/librkllmrt.so").unlink()
    assert detect(monkeypatch, tmp_path) is None


def test_a_library_by_name_wins_over_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = put(tmp_path, "sim/librkllmrt.so", MARKER)
    assert detect(monkeypatch, tmp_path, RKLLM_LIB=str(simulator.parent)) == f"RKLLM_LIB {simulator}"


def test_a_library_by_name_that_is_not_there_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect(monkeypatch, rock_5b(tmp_path), RKLLM_LIB=str(tmp_path / "nowhere")) is None


def test_the_detector_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(env: object) -> Board:
        raise ZeroDivisionError

    monkeypatch.setattr(detection, "read_board", broken)
    with caplog.at_level(logging.ERROR):
        assert detect(monkeypatch, tmp_path) is None
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("root", ["\0", "/nowhere/at/all", "/dev/null", "~nobody-of-that-name"])
def test_a_root_that_leads_nowhere_is_an_empty_board(root: str) -> None:
    board = read_board({"RKLLM_ROOT": root, "HOME": "/nowhere"})
    assert (board.soc, board.library, board.has_npu) == (None, None, False)


@pytest.mark.parametrize("name", ["RKLLM_LIB", "RKLLAMA_HOME"])
@pytest.mark.parametrize("value", ["\0", "~nobody-of-that-name/lib"])
def test_a_place_that_makes_no_sense_is_a_problem_and_no_crash(tmp_path: Path, name: str, value: str) -> None:
    assert read_board({name: value, "HOME": "/nowhere"}, tmp_path).library is None


@settings(max_examples=60, deadline=None, database=None)
@given(content=st.binary(max_size=60) | st.sampled_from([b"DRIVER=", b"cpu", b"rockchip,rk3588\0" * 3, b"9" * 5000]))
def test_no_content_of_any_file_breaks_it(content: bytes) -> None:
    files = (
        "proc/device-tree/compatible",
        "proc/device-tree/model",
        "proc/modules",
        DEBUG_VERSION,
        MODULE_VERSION,
        "sys/devices/system/cpu/cpu0/cpu_capacity",
        "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq",
        "sys/class/drm/renderD128/device/uevent",
        "sys/class/accel/accel0/device/uevent",
        "usr/lib/librkllmrt.so",
    )
    with TemporaryDirectory() as folder:
        for name in files:
            put(Path(folder), name, content)
        board = read_board({"HOME": folder}, Path(folder))
    assert board.library is not None
    assert all(problem.endswith(".") for problem in board.problems)


@pytest.mark.parametrize(("name", "expected"), [("RK3588S", "rk3588"), ("rk3576", "rk3576"), (" rv1126b ", "rv1126b")])
def test_platforms_by_name(name: str, expected: str) -> None:
    assert target_platform(name) == expected


@pytest.mark.parametrize("name", ["rk3566", "", "RK3588; reboot"])
def test_an_unknown_platform_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="rk3588, rk3576, rk3562, rv1126b"):
        target_platform(name)
