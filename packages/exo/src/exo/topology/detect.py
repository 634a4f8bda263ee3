"""Running the probes: all at once, each on its own, and none of them can stop the node."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import MappingProxyType
from typing import TypeVar

import msgspec

from exo.topology.capabilities import Machine, Memory, NodeCapabilities
from exo.topology.contract import Findings, Probe, Surroundings
from exo.topology.probes.amd import probe_amd
from exo.topology.probes.apple import probe_apple
from exo.topology.probes.host import probe_host
from exo.topology.probes.nvidia import probe_nvidia
from exo.topology.readings import Reader, describe, in_background

PROBES: Mapping[str, Probe] = MappingProxyType(
    {"host": probe_host, "nvidia": probe_nvidia, "amd": probe_amd, "apple": probe_apple}
)
logger = logging.getLogger(__name__)
S = TypeVar("S", bound=msgspec.Struct)


def probe(
    probes: Mapping[str, Probe] = PROBES, *, around: Surroundings | None = None, timeout: float = 5.0
) -> NodeCapabilities:
    """What this machine is and has. Takes at most about `timeout` seconds, usually far less, and never raises.

    It blocks: call it on a thread of its own where an event loop runs. Of two probes that tell the same thing, the
    earlier one is believed.
    """
    surroundings = around or Surroundings()
    deadline = time.monotonic() + timeout
    # Readings get less time than their probe, so that a probe with one that hangs can still hand over the others.
    readers = {name: Reader(budget=timeout * 0.8) for name in probes}
    running = {name: _start(name, one, surroundings, readers[name]) for name, one in probes.items()}
    found = [_finish(name, running[name], readers[name], deadline) for name in probes]
    return NodeCapabilities(
        machine=_first_known(Machine(), [findings.machine for findings in found]),
        memory=_first_known(Memory(), [findings.memory for findings in found]),
        accelerators=tuple(accelerator for findings in found for accelerator in findings.accelerators),
        unknown=tuple(sentence for reader in readers.values() for sentence in tuple(reader.unknown)),
    )


def _start(name: str, one: Probe, around: Surroundings, reader: Reader) -> Future[Findings] | None:
    def call() -> Findings:
        # Checked here, so that a probe with a value of a wrong type loses its own findings only. Bytes are left as they
        # are, which is refused: they would pass as base64.
        plain = msgspec.to_builtins(one(around, reader), builtin_types=(bytes, bytearray, memoryview))
        return msgspec.convert(plain, Findings)

    try:
        return in_background(call)
    except RuntimeError as error:  # no thread can be started
        reader.note(f"Probe {name}: {describe(error)}")
        return None


def _finish(name: str, running: Future[Findings] | None, reader: Reader, deadline: float) -> Findings:
    if running is None:
        return Findings()
    try:
        error = running.exception(max(0.0, deadline - time.monotonic()))
    except FutureTimeoutError:
        reader.note(f"Probe {name}: did not end in time")
        return Findings()
    if error is not None:
        logger.warning("the probe %s failed", name, exc_info=error)
        reader.note(f"Probe {name}: {describe(error)}")
        return Findings()
    return running.result()


def _first_known(unknown: S, found: Iterable[S]) -> S:
    """Field by field the first value that is not None."""
    known: dict[str, object] = {}
    for one in found:
        for key, value in msgspec.structs.asdict(one).items():
            if value is not None:
                known.setdefault(key, value)
    return msgspec.structs.replace(unknown, **known)
