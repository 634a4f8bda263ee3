"""What a probe is given, and what it hands back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from exo.topology.capabilities import Accelerator, Machine, Memory
from exo.topology.readings import Reader

CommandRunner = Callable[[Sequence[str], float], str]


def run_command(command: Sequence[str], timeout: float) -> str:
    """Run `command` for at most `timeout` seconds and return what it printed.

    Raises OSError, subprocess.CalledProcessError for an exit status other than 0, subprocess.TimeoutExpired.
    """
    done = subprocess.run(  # noqa: S603 - the probes' own fixed commands, by absolute path
        list(command), stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=timeout
    )
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True)
class Surroundings:
    """Where the probes look. Folders of files stand for /dev, /proc and /sys in tests, a function for the commands.

    `platform` is as in `sys.platform`.
    """

    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    platform: str = sys.platform
    run: CommandRunner = run_command


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe found; what it could not find is noted in its Reader."""

    machine: Machine = Machine()
    memory: Memory = Memory()
    accelerators: tuple[Accelerator, ...] = ()


Probe = Callable[[Surroundings, Reader], Findings]
