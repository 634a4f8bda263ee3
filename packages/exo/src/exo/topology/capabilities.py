"""What a node knows of the machine it runs on. None always means: not known."""

from __future__ import annotations

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The computer itself.

    `architecture` is as `uname -m` says it, `os` as `uname -s`. `model` is the board's or computer's own name, where
    the firmware tells one. `cpu_model` names several kinds of cores with their numbers: `4 x Cortex-A55, 4 x
    Cortex-A76`. `physical_cores` and `logical_cores` are of the machine; a container or an affinity may allow fewer.
    """

    architecture: str | None = None
    os: str | None = None
    os_release: str | None = None
    model: str | None = None
    cpu_model: str | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory in bytes. `available` could be had without swapping at the time of the probe."""

    total: int | None = None
    available: int | None = None


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU or the like; the readings are of the time of the probe.

    `vendor` is in lower case (`nvidia`, `amd`, `apple`, `intel`). Memory is in bytes, `utilisation` a fraction from 0
    to 1, `temperature` in degrees Celsius, `power` in watts. `unified_memory`: it works in the machine's main memory,
    so that `memory_total`, if known, must not be added to that.
    """

    vendor: str | None = None
    name: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    unified_memory: bool | None = None
    utilisation: float | None = None
    temperature: float | None = None
    power: float | None = None


class NodeCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """All that the probes found. `unknown` says in sentences what is not known and why."""

    machine: Machine = Machine()
    memory: Memory = Memory()
    accelerators: tuple[Accelerator, ...] = ()
    unknown: tuple[str, ...] = ()
