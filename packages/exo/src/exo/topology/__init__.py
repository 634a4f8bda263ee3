"""What the machine has that the node runs on. Nothing is probed or loaded before `probe` is called."""

from exo.topology.capabilities import Accelerator, Machine, Memory, NodeCapabilities
from exo.topology.contract import CommandRunner, Findings, Probe, Surroundings
from exo.topology.detect import PROBES, probe
from exo.topology.readings import NoAnswer, Reader

__all__ = [
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
