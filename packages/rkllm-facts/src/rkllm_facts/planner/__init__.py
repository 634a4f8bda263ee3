"""Speed, time to the first token, memory and file size of a model on a chip; and what would make it fit."""

from rkllm_facts.planner.calibration import Calibration, Errors, Spread, calibration
from rkllm_facts.planner.plan import (
    LONGEST_CONTEXT,
    USUAL_TYPES,
    Part,
    Plan,
    asked_mb,
    memory_of_file,
    plan,
    reserved_mb,
    usual_type,
)
from rkllm_facts.planner.remedies import LEAST_CONTEXT, Remedy, remedies

__all__ = [
    "LEAST_CONTEXT",
    "LONGEST_CONTEXT",
    "USUAL_TYPES",
    "Calibration",
    "Errors",
    "Part",
    "Plan",
    "Remedy",
    "Spread",
    "asked_mb",
    "calibration",
    "memory_of_file",
    "plan",
    "remedies",
    "reserved_mb",
    "usual_type",
]
