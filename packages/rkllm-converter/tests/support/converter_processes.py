"""Children of a process, whether they live, and waiting with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["children", "is_alive", "wait_for"]


def children(pid: int) -> list[int]:
    found = [Path(f"/proc/{pid}/task/{task.name}/children") for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(one) for file in found for one in file.read_text("utf-8").split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], what: str = "what was waited for", *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.02)
