"""How far a long change to the store has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step. `file` is the name of the file at hand, if there is one; `total` and `completed` are its bytes.

    None for either of the two: not known.
    """

    status: str
    file: str = ""
    total: int | None = None
    completed: int | None = None


Report = Callable[[Progress], None]


def ignore(_step: Progress) -> None:
    """The report of a caller who does not want one."""
