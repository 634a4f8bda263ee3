"""What a board tells of itself while it runs: load, frequencies, temperatures, governors, throttling.

From the files of Rockchip's kernels 5.10 and 6.1 with the driver RKNPU, read below a root as in `detection`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exo_rkllm.detection import npu_driver
from exo_rkllm.kernel_files import matching, text_of, whole_number

ALL_CORES = "all"
_MOST_ENTRIES = 64
"""Of one kind; boards have a dozen at most."""
_COLDEST, _HOTTEST = -100.0, 300.0
_NAME = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?", re.ASCII)
_CORE_LOAD = re.compile(r"Core([0-9]{1,2}):\s*([0-9]{1,12})%", re.ASCII)
_WHOLE_LOAD = re.compile(r"NPU load:\s*([0-9]{1,12})%", re.ASCII)
_DEVFREQ_LOAD = re.compile(r"([0-9]{1,12})@", re.ASCII)
_SLOWED = re.compile(r"cpu|devfreq|processor|idle|gpu|npu|dmc", re.ASCII | re.IGNORECASE)
"""In the names of cooling devices that make a chip slower: thermal-cpufreq-0, cpufreq-cpu4, devfreq-fb000000.gpu.
Others are backlights and chargers, and on PCs one whose state is never 0."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What could be read; None, or not in the mapping, what could not. Frequencies in hertz, temperatures in °C.

    - `npu_load`: 0 to 1 by number of the core, or for `all` where only that is known
    - `temperatures`: by name of the thermal zone; of several with one name the hottest
    - `throttled`: by name of the cooling device, whether the kernel holds something below full speed now; no fans
    - `governors`: of `npu`, `dmc` (the memory) and the CPUs' policies, such as `policy4`
    - `driver`: version of the NPU's driver
    """

    npu_load: Mapping[str, float] = field(default_factory=dict)
    npu_frequency: int | None = None
    npu_frequency_max: int | None = None
    ddr_frequency: int | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)
    throttled: Mapping[str, bool] = field(default_factory=dict)
    governors: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None


def read_telemetry(root: Path) -> Telemetry:
    """Read everything once. Files that cannot be read, or hold something else, count as not known; never raises.

    May block for as long as the kernel takes to answer.
    """
    npu, dmc = _devfreq(root, "*.npu"), _devfreq(root, "dmc", "*.dmc")
    return Telemetry(
        npu_load=_npu_load(root, npu),
        npu_frequency=_hertz(npu, "cur_freq"),
        npu_frequency_max=_highest(npu),
        ddr_frequency=_hertz(dmc, "cur_freq"),
        temperatures=_temperatures(root),
        throttled=_throttled(root),
        governors=dict(_governors(root, npu, dmc)),
        driver=npu_driver(root)[0],
    )


def _npu_load(root: Path, npu: Path | None) -> dict[str, float]:
    """The driver's own figure is the share of the last second. debugfs is for root only, /proc/rknpu for everybody, but
    few kernels have it."""
    for file in ("sys/kernel/debug/rknpu/load", "proc/rknpu/load"):
        text = text_of(root / file)
        if cores := {str(int(core)): _share(load) for core, load in _CORE_LOAD.findall(text)}:
            return cores
        if whole := _WHOLE_LOAD.search(text):  # a chip with one core
            return {"0": _share(whole[1])}
    # Drivers of the vendor give devfreq no figures, so that its file says 0 whatever the NPU does.
    found = _DEVFREQ_LOAD.match(text_of(npu / "load")) if npu else None
    load = _share(found[1]) if found else 0
    return {ALL_CORES: load} if load else {}


def _share(percent: str) -> float:
    """0 to 1. Older drivers count the whole time of a job that hung into one second: 20000 % has been seen."""
    return min(int(percent), 100) / 100


def _devfreq(root: Path, *names: str) -> Path | None:
    return next(iter(matching(root / "sys/class/devfreq", *names)), None)


def _hertz(device: Path | None, file: str) -> int | None:
    return whole_number(text_of(device / file).strip()) if device else None


def _highest(device: Path | None) -> int | None:
    """The highest frequency of the chip. max_freq is a limit that cooling lowers, and 0 where there is none."""
    if device is None:
        return None
    available = map(whole_number, text_of(device / "available_frequencies").split())
    return max((one for one in available if one), default=None) or _hertz(device, "max_freq") or None


def _governors(root: Path, npu: Path | None, dmc: Path | None) -> Iterator[tuple[str, str]]:
    files = [(name, device / "governor") for name, device in (("npu", npu), ("dmc", dmc)) if device]
    policies = matching(root / "sys/devices/system/cpu/cpufreq", "policy[0-9]*")[:_MOST_ENTRIES]
    files += [(policy.name, policy / "scaling_governor") for policy in policies]
    for name, file in files:
        if (governor := _name(file)) and _NAME.fullmatch(name):
            yield name, governor


def _temperatures(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, zone in _thermal(root, "thermal_zone[0-9]*"):
        text = text_of(zone / "temp").strip()
        millidegrees = whole_number(text.removeprefix("-"))
        if millidegrees is None:
            continue
        degrees = (-millidegrees if text.startswith("-") else millidegrees) / 1000
        if _COLDEST <= degrees <= _HOTTEST:
            found[name] = max(degrees, found.get(name, degrees))
    return found


def _throttled(root: Path) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for name, device in _thermal(root, "cooling_device[0-9]*"):
        state = whole_number(text_of(device / "cur_state").strip())
        if state is not None and _SLOWED.search(name) and "fan" not in name.lower():
            found[name] = found.get(name, False) or state > 0
    return found


def _thermal(root: Path, pattern: str) -> Iterator[tuple[str, Path]]:
    """What the kernel calls them, and their folders."""
    for folder in matching(root / "sys/class/thermal", pattern)[:_MOST_ENTRIES]:
        if name := _name(folder / "type"):
            yield name, folder


def _name(file: Path) -> str | None:
    text = text_of(file).strip()
    return text if _NAME.fullmatch(text) else None
