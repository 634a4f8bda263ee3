"""The stored config.json files, as models and as folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rkllm_converter.preflight import Disk, Machine
from rkllm_converter.source import Source

__all__ = ["CONFIGS", "ROOMY", "config", "machine", "model"]

CONFIGS = Path(__file__).parents[1] / "configs"


def config(name: str, **changed: Any) -> dict[str, Any]:
    """The file configs/NAME.json, with keys of `changed` in place of its own; None takes one out."""
    read = {**json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")), **changed}
    return {key: value for key, value in read.items() if value is not None}


def model(of: Mapping[str, Any], **more: Any) -> Source:
    """A folder with that config.json and nothing else."""
    known: dict[str, Any] = {"kind": "folder", "name": "m", "files": {"config.json": 1}, "fingerprint": "f"}
    return Source(config=of, **{**known, **more})


def machine(memory_mb: float = 1e9, *, disks: Mapping[str, Disk] | None = None) -> Machine:
    """`disks` by the first part of a path; anything else is on one that is all but endless."""
    return Machine(memory_mb, lambda path: (disks or {}).get(path.parts[1], Disk(0, 1e9)))


ROOMY = machine()
