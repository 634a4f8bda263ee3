"""Compiles the simulated librkllmrt.so."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rkllm_facts.abi import SUPPORTED, Version, layout_for_release
from rkllm_facts.errors import UnknownVersion
from rkllm_sim.errors import SimulatorError

__all__ = ["ABI_NUMBERS", "LIBRARY_NAME", "BuildError", "build", "compiler_flags", "sources"]

LIBRARY_NAME = "librkllmrt.so"

ABI_NUMBERS = {"1.1.4": 10104, "1.2.0": 10200, "1.2.1b1": 10201, "1.2.3": 10203, "1.3.0": 10300}
"""RKLLM_SIM_ABI of rkllm.h for each layout."""

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-pthread")
_LINK_FLAGS = ("-shared", f"-Wl,-soname,{LIBRARY_NAME}", "-Wl,--no-undefined")
_TIMEOUT = 120.0


class BuildError(SimulatorError):
    """The library could not be compiled; the message says why and what to do."""


def sources() -> Path:
    """The folder with the C files and rkllm.h."""
    return Path(__file__).parent / "c"


def build(
    abi: str, output: Path, *, compiler: str = "gcc", marker: bool = True, extra_flags: Sequence[str] = ()
) -> Path:
    """Compile `output`/librkllmrt.so and return its path.

    `abi` is a release, 1.2.2 for instance: the library has its layout and says its version. Without `marker` the
    version does not stand in the file, as in old libraries. A library that lies there is replaced at once, so a process
    that uses it keeps the old one. Raises BuildError.
    """
    target = output / LIBRARY_NAME
    command = _command(compiler)
    flags = compiler_flags(abi, marker=marker)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".rkllm-sim-", dir=output) as folder:
            made = Path(folder) / LIBRARY_NAME
            files = [str(path) for path in sorted(sources().glob("*.c"))]
            _compile([command, *_FLAGS, *flags, *extra_flags, *_LINK_FLAGS, "-o", str(made), *files])
            made.replace(target)
    except OSError as error:
        raise BuildError(f"Cannot write {target}: {error.strerror or error}. Choose another folder.") from error
    return target


def compiler_flags(abi: str, *, marker: bool = True) -> list[str]:
    """The definitions that choose layout and version of a release. Raises BuildError if it is not supported."""
    try:
        found = layout_for_release(abi)
    except UnknownVersion as error:
        names = ", ".join(SUPPORTED)
        raise BuildError(f"There is no layout for --abi {abi}. Choose one of {names}. {error}") from error
    version = Version.parse(abi)
    release = version.major * 10000 + version.minor * 100 + version.patch
    flags = [f"-DRKLLM_SIM_ABI={ABI_NUMBERS[found.name]}", f"-DRKLLM_SIM_RELEASE={release}"]
    return [*flags, f'-DRKLLM_SIM_VERSION="{version}"', *(["-DRKLLM_SIM_MARKER"] if marker else [])]


def _command(compiler: str) -> str:
    found = shutil.which(compiler)
    if found is None:
        raise BuildError(
            f"There is no C compiler {compiler!r} on PATH. Install one (on Debian and Ubuntu: `apt install gcc"
            " libc6-dev`), or name another one."
        )
    return found


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the compiler that the caller named, without a shell
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} has not finished after {_TIMEOUT:g} seconds.") from error
    if done.returncode:
        raise BuildError(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr.strip()}")
