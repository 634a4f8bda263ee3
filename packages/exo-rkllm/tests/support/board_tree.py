"""Folders that stand in for a running board, with what the vendor's kernel has in /proc and /sys."""

from __future__ import annotations

from pathlib import Path

NPU_LOAD = "sys/kernel/debug/rknpu/load"
RK3588_NPU = "sys/class/devfreq/fdab0000.npu"
RK3576_NPU = "sys/class/devfreq/27700000.npu"
DMC = "sys/class/devfreq/dmc"
THERMAL = "sys/class/thermal"
POLICIES = "sys/devices/system/cpu/cpufreq"


def put(root: Path, name: str, content: str | bytes) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def running_rk3588(root: Path) -> Path:
    """Kernel 6.1, read by root, while a model runs."""
    put(root, "proc/device-tree/compatible", "radxa,rock-5b\0rockchip,rk3588\0")
    put(root, "sys/kernel/debug/rknpu/version", "RKNPU driver: v0.9.8\n")
    put(root, NPU_LOAD, "NPU load:  Core0: 63%, Core1:  5%, Core2:  0%,\n")
    _devfreq(root, RK3588_NPU, 1_000_000_000, (300_000_000, 1_000_000_000), "rknpu_ondemand")
    _devfreq(root, DMC, 2_112_000_000, (534_000_000, 1_320_000_000, 1_968_000_000, 2_112_000_000), "dmc_ondemand")
    for policy, governor in (("policy0", "ondemand"), ("policy4", "performance"), ("policy6", "performance")):
        put(root, f"{POLICIES}/{policy}/scaling_governor", f"{governor}\n")
    zones = {"soc": 61_923, "bigcore0": 63_846, "bigcore1": 62_884, "littlecore": 61_923, "npu": 60_076}
    _zones(root, {f"{name}-thermal": value for name, value in zones.items()})
    devices = ("cpufreq-cpu0", 0), ("cpufreq-cpu4", 2), ("devfreq-fb000000.gpu", 0), ("pwm-fan", 3)
    _cooling(root, *devices)
    return root


def running_rk3576(root: Path) -> Path:
    """Kernel 6.1 without debugfs, read by anybody."""
    put(root, "proc/device-tree/compatible", "radxa,rock-4d\0rockchip,rk3576\0")
    put(root, "sys/module/rknpu/version", "0.9.7\n")
    put(root, "proc/rknpu/load", "NPU load:  Core0: 12%, Core1: 99%,\n")
    _devfreq(root, RK3576_NPU, 300_000_000, (300_000_000, 600_000_000, 950_000_000), "performance")
    for policy in ("policy0", "policy4"):
        put(root, f"{POLICIES}/{policy}/scaling_governor", "schedutil\n")
    _zones(root, {"soc-thermal": 48_500, "npu-thermal": -1_250})
    _cooling(root, ("thermal-cpufreq-0", 0), ("thermal-cpufreq-1", 0))
    return root


def _devfreq(root: Path, folder: str, current: int, available: tuple[int, ...], governor: str) -> None:
    put(root, f"{folder}/cur_freq", f"{current}\n")
    put(root, f"{folder}/max_freq", f"{available[-1]}\n")
    put(root, f"{folder}/available_frequencies", f"{' '.join(map(str, available))}\n")
    put(root, f"{folder}/governor", f"{governor}\n")
    put(root, f"{folder}/load", f"0@{current}Hz\n")


def _zones(root: Path, millidegrees: dict[str, int]) -> None:
    for number, (name, value) in enumerate(millidegrees.items()):
        put(root, f"{THERMAL}/thermal_zone{number}/type", f"{name}\n")
        put(root, f"{THERMAL}/thermal_zone{number}/temp", f"{value}\n")


def _cooling(root: Path, *devices: tuple[str, int]) -> None:
    for number, (name, state) in enumerate(devices):
        put(root, f"{THERMAL}/cooling_device{number}/type", f"{name}\n")
        put(root, f"{THERMAL}/cooling_device{number}/cur_state", f"{state}\n")
