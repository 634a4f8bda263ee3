"""What board this is: chip, NPU driver, runtime library and CPU cores. Files are read, nothing is loaded or started.

Everything is read below a root, so that a folder of files can stand in for a board: RKLLM_ROOT names it, or a test.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exo.types import ConfigurationError
from exo_rkllm.kernel_files import children, is_there, matching, text_of, whole_number
from rkllm_facts.chips import CHIPS, chip

Flavour = Literal["rknpu", "rocket"]

ROOT_VARIABLE = "RKLLM_ROOT"
LIBRARY_VARIABLE = "RKLLM_LIB"
SERVER_VARIABLES = ("RKLLM_SERVER_HOST", "RKLLM_SERVER_PORT")
WARNED_BELOW = (0, 9, 7)
"""The runtime itself warns below this version of RKNPU and goes on; W8A8 models then failed on 0.8.2."""

_ASKED_FOR = "0.9.8"
_PLATFORMS = tuple(dict.fromkeys(one.target_platform for one in CHIPS))
_SOC = re.compile(r"rockchip,((?:rk|rv|px)[0-9]{2,4}[a-z0-9]{0,4})", re.ASCII)
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})", re.ASCII)
_SAME_CAPACITY = 0.8
_SAME_FREQUENCY = 0.93
"""CPUs of one kind differ a little: RK3588 has two pairs of big cores that may be binned to different frequencies. The
little cores of RK3576 come close to its big ones in frequency, far less so in capacity."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Board:
    """What was found; None or empty where it was not.

    - `soc`: the chip as the device tree names it, such as `rk3588s`; other makers' chips are None
    - `chip`: what toolkit, runtime and `--target-platform` call it, such as `rk3588`; None if the runtime has no NPU
      there
    - `driver`: version of the NPU's driver, such as `0.9.8`. `flavour`: whose driver it is; only `rknpu` is usable
    - `big_cpus`, `little_cpus`: numbers of the CPUs; both empty where all are alike
    - `problems`: a sentence for each thing that is missing, or too old, with what to do
    """

    soc: str | None = None
    chip: str | None = None
    model: str | None = None
    driver: str | None = None
    flavour: Flavour | None = None
    library: Path | None = None
    library_version: str | None = None
    big_cpus: tuple[int, ...] = ()
    little_cpus: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def has_npu(self) -> bool:
        """The chip has an NPU for the runtime, and the kernel has not given it to a driver that the runtime cannot use.

        A driver that was not found counts as usable: a container may hide it.
        """
        return self.chip is not None and self.flavour != "rocket"


def root_from(env: Mapping[str, str]) -> Path:
    """The folder that stands for `/`."""
    return Path(env.get(ROOT_VARIABLE) or "/")


def read_board(env: Mapping[str, str], root: Path | None = None) -> Board:
    """Look at everything. `root` wins over RKLLM_ROOT. Files that cannot be read count as missing; never raises."""
    root = root or root_from(env)
    soc = _soc(root)
    name = _platform_of(soc)
    driver, flavour = npu_driver(root)
    library, library_version, library_problems = _library(env, root)
    big, little = cpu_classes(root, name)
    return Board(
        soc=soc,
        chip=name,
        model=text_of(root / "proc/device-tree/model").strip("\0 \n") or None,
        driver=driver,
        flavour=flavour,
        library=library,
        library_version=library_version,
        big_cpus=big,
        little_cpus=little,
        problems=(
            *_chip_problems(root, soc, name),
            *(_driver_problems(root, driver, flavour) if name else ()),
            *library_problems,
        ),
    )


def detect_rockchip_npu() -> str | None:
    """The device detector: the name of the chip where its NPU can be used, else None. Never raises.

    A server named by RKLLM_SERVER_HOST or RKLLM_SERVER_PORT has the NPU, whatever this machine is. A library named by
    RKLLM_LIB wins over all else that is here, so that the simulator is taken on any machine.
    """
    env = os.environ
    if any(env.get(name, "").strip() for name in SERVER_VARIABLES):
        return "rkllm"
    try:
        board = read_board(env)
    except Exception:  # a node has to start on any machine; what went wrong is in the log
        logger.exception("looking for a Rockchip NPU failed")
        return None
    if board.library is None:
        if env.get(LIBRARY_VARIABLE):
            logger.warning("%s", " ".join(board.problems[-1:]))
        return None
    if env.get(LIBRARY_VARIABLE):
        return f"{LIBRARY_VARIABLE} {board.library}"
    return board.soc if board.has_npu else None


def target_platform(name: str) -> str:
    """What toolkit and runtime call a chip: `rk3588` for `RK3588S`. Raises ConfigurationError for an unknown one."""
    found = _platform_of(name.strip().lower())
    if found is None:
        raise ConfigurationError(f"{name!r} is no platform of the runtime: take one of {', '.join(_PLATFORMS)}.")
    return found


def cpu_classes(root: Path, chip_name: str | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the big and of the little CPUs, both empty where all are alike or nothing is known.

    By capacity as the kernel gives it, else by highest frequency, else by the usual numbering of the chip.
    """
    for file, same in (("cpu_capacity", _SAME_CAPACITY), ("cpufreq/cpuinfo_max_freq", _SAME_FREQUENCY)):
        found = {}
        for number, folder in _cpus(root):
            value = whole_number(text_of(folder / file).strip())
            if value is not None:
                found[number] = value
        if found:
            top = max(found.values())
            big = tuple(sorted(number for number, value in found.items() if value >= top * same))
            little = tuple(sorted(set(found) - set(big)))
            if little:
                return big, little
            if file == "cpu_capacity":
                return (), ()
    usual = chip(chip_name) if chip_name else None
    present = {number for number, _ in _cpus(root)}
    if usual is None or not usual.big_cpus or (present and not set(usual.cpus) <= present):
        return (), ()
    return usual.big_cpus, usual.little_cpus


def _cpus(root: Path) -> Iterator[tuple[int, Path]]:
    for folder in children(root / "sys/devices/system/cpu"):
        number = whole_number(folder.name.removeprefix("cpu"))
        if folder.name.startswith("cpu") and number is not None:
            yield number, folder


# --- the chip ---


def _compatible(root: Path) -> list[str]:
    """The board's names, from the most special to the most general one."""
    text = text_of(root / "proc/device-tree/compatible") or text_of(root / "sys/firmware/devicetree/base/compatible")
    return [name for name in text.strip().split("\0") if name]


def _soc(root: Path) -> str | None:
    """The chip by name; one that the runtime knows is preferred where the device tree names several."""
    found = [match[1] for name in _compatible(root) if (match := _SOC.fullmatch(name.lower()))]
    return next((name for name in found if _platform_of(name)), found[-1] if found else None)


def _platform_of(soc: str | None) -> str | None:
    """Variants such as rk3588s2 or rk3576j have the NPU of the chip whose name they begin with."""
    for platform in _PLATFORMS:
        if soc is not None and re.fullmatch(rf"{platform}(?:[a-z][0-9]?)?", soc, re.ASCII):
            return platform
    return None


def _chip_problems(root: Path, soc: str | None, platform: str | None) -> Iterator[str]:
    if platform is not None:
        return
    if soc is not None:
        yield (
            f"The chip {soc} has no NPU that Rockchip's LLM runtime can use; it runs on {', '.join(_PLATFORMS)}. "
            "Use the engine llamacpp here, or another machine's NPU with RKLLM_SERVER_HOST."
        )
    elif names := _compatible(root):
        yield f"This board has no Rockchip chip; its device tree names {', '.join(names)}."
    else:
        yield f"This machine is no Rockchip board: there is no {root / 'proc/device-tree/compatible'}."


# --- the driver ---


def npu_driver(root: Path) -> tuple[str | None, Flavour | None]:
    """Version and flavour of the NPU's driver.

    A driver that holds the device counts more than a module that is merely there: some kernels have both.
    """
    # debugfs is for root only; a module's own folder is there for everybody, and for drivers built into the kernel
    for file in ("sys/kernel/debug/rknpu/version", "proc/rknpu/version", "sys/module/rknpu/version"):
        if version := _VERSION.search(text_of(root / file)):
            return version[0], _holder(root) or "rknpu"
    return None, _holder(root) or _module(root)


def _holder(root: Path) -> Flavour | None:
    if is_there(root / "sys/kernel/debug/rknpu") or _nodes(root) or matching(root / "sys/class/devfreq", "*.npu"):
        return "rknpu"
    if any(_driver_of(entry) == "rocket" for entry in children(root / "sys/class/accel")):
        return "rocket"
    return None


def _module(root: Path) -> Flavour | None:
    loaded = {line.split(" ")[0] for line in text_of(root / "proc/modules").splitlines()}
    platform = root / "sys/bus/platform/drivers"
    if is_there(root / "sys/module/rknpu") or "rknpu" in loaded or is_there(platform / "RKNPU"):
        return "rknpu"
    if is_there(root / "sys/module/rocket") or "rocket" in loaded or is_there(platform / "rocket"):
        return "rocket"
    return None


def _nodes(root: Path) -> list[Path]:
    """The device files of the NPU. The GPU has one of the same kind, so the driver behind it decides."""
    entries = matching(root / "sys/class/drm", "renderD*")
    return [root / "dev/dri" / entry.name for entry in entries if _driver_of(entry) == "rknpu"]


def _driver_of(entry: Path) -> str:
    """The driver behind a device's entry in /sys/class, in lower case."""
    named = re.search(r"^DRIVER=(\S+)$", text_of(entry / "device/uevent"), re.MULTILINE)
    if named:
        return named[1].lower()
    try:
        return (entry / "device/driver").readlink().name.lower()
    except (OSError, ValueError):
        return ""


def _driver_problems(root: Path, driver: str | None, flavour: Flavour | None) -> Iterator[str]:
    if flavour == "rocket":
        yield (
            "The NPU belongs to the driver rocket of the mainline kernel, which Rockchip's runtime cannot use. "
            f"Boot the vendor's kernel (5.10 or 6.1) with RKNPU {_ASKED_FOR}, or use the engine llamacpp."
        )
    elif flavour is None:
        yield (
            "No driver of the NPU was found. The runtime needs the vendor's kernel (5.10 or 6.1) with RKNPU "
            f"{_ASKED_FOR}; a container needs the board's /sys and /dev/dri."
        )
    elif driver is None:
        yield "The version of the NPU's driver is not known: only root may read /sys/kernel/debug/rknpu/version here."
    elif tuple(int(part) for part in driver.split(".")) < WARNED_BELOW:
        yield (
            f"The NPU's driver RKNPU {driver} is too old: the runtime asks for {_ASKED_FOR} and warns below "
            f"{'.'.join(map(str, WARNED_BELOW))}. It is part of the kernel: update the board's kernel."
        )
    for node in _nodes(root) if flavour == "rknpu" else ():
        if not is_there(node):
            yield f"The NPU's device {node} is missing: give the container the devices of /dev/dri."
        elif not os.access(node, os.R_OK | os.W_OK):
            yield f"The NPU's device {node} may not be opened by this user: add the user to the device's group."


# --- the library ---


def _library(env: Mapping[str, str], root: Path) -> tuple[Path | None, str | None, tuple[str, ...]]:
    # The binding is imported only here: what reads cards or settings needs none of it.
    from exo_rkllm.runtime import find_library, library_marker  # noqa: PLC0415
    from exo_rkllm.runtime.errors import NpuError  # noqa: PLC0415

    try:
        path = find_library(env, root=root)
    except (
        NpuError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # the others: a path with a NUL, a user without a home
        return None, None, (str(error),)
    try:
        return path, library_marker(path), ()
    except NpuError as error:
        return path, None, (error.message,)
