"""The value types: everything may be missing, and all of it can be sent as JSON."""

from __future__ import annotations

import msgspec

from exo import topology
from exo.topology import Accelerator, Machine, Memory, NodeCapabilities


def test_nothing_need_be_known() -> None:
    nothing = NodeCapabilities()
    assert nothing.accelerators == ()
    assert nothing.unknown == ()
    for part in (nothing.machine, nothing.memory, Accelerator()):
        assert set(msgspec.structs.asdict(part).values()) == {None}


def test_json_and_back() -> None:
    capabilities = NodeCapabilities(
        machine=Machine(architecture="aarch64", physical_cores=8),
        memory=Memory(total=8 * 2**30),
        accelerators=(Accelerator(vendor="nvidia", memory_used=0, utilisation=0.25),),
        unknown=("NVIDIA GPU 0: power usage: Not Supported",),
    )
    assert msgspec.json.decode(msgspec.json.encode(capabilities), type=NodeCapabilities) == capabilities


def test_the_public_names() -> None:
    assert topology.__all__ == [
        "PROBES",
        "Accelerator",
        "CommandRunner",
        "Findings",
        "Machine",
        "Memory",
        "NoAnswer",
        "NodeCapabilities",
        "Probe",
        "Reader",
        "Surroundings",
        "probe",
    ]
    assert all(hasattr(topology, name) for name in topology.__all__)
