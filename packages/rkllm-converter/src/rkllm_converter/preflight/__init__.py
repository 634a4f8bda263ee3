"""Whether a conversion can work at all: the model, this machine, its disk and the board, before any weights are had."""

from rkllm_converter.preflight.check import preflight
from rkllm_converter.preflight.machine import Disk, Machine
from rkllm_converter.preflight.result import KINDS, Preflight, refuse, titled

__all__ = ["KINDS", "Disk", "Machine", "Preflight", "preflight", "refuse", "titled"]
