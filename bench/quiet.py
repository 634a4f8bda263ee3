"""Noticing that other work on the machine disturbs a measurement: wait for a quiet moment, and repeat if it passes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from report import Row, plain

T = TypeVar("T")
LIMIT = 10.0
"""Percent of one core that processes outside of the benchmark may use during a measurement."""
_LOOK = 0.5


class Quiet:
    """Runs measurements.

    All of them together wait at most `patience` seconds for a quiet moment, and are repeated at most `retries` times.
    `row` tells how much others used during those that count.
    """

    def __init__(self, *, retries: int, patience: float = 10.0) -> None:
        self.shares: list[float] = []
        self._retries = retries
        self._patience = patience

    def run(self, title: str, measure: Callable[[], T]) -> T:
        """The result of `measure`; of the last attempt, if all were disturbed."""
        while True:
            self._wait()
            _say(title)
            began, others = time.monotonic(), _others()
            result = measure()
            share = _share(began, others)
            if share <= LIMIT or self._retries == 0:
                self.shares.append(share)
                return result
            self._retries -= 1
            _say(f"… again, as other processes used {share:.0f} % of a core")

    def row(self) -> Row:
        return plain("meanwhile used by other processes", self.shares, "% of a core")

    def _wait(self) -> None:
        while self._patience > 0:
            began, others = time.monotonic(), _others()
            time.sleep(_LOOK)
            if _share(began, others) <= LIMIT:
                return
            self._patience -= _LOOK


def _share(began: float, others: float) -> float:
    return max(0.0, (_others() - others) / (time.monotonic() - began) * 100)


def _others() -> float:
    """CPU seconds so far of processes outside of this one's tree; on a virtual machine with what its host kept back."""
    system = psutil.cpu_times()
    busy = system.user + system.nice + system.system + getattr(system, "steal", 0.0)
    this = psutil.Process()
    own = 0.0
    for process in (this, *this.children(recursive=True)):
        times = process.cpu_times()
        own += times.user + times.system + times.children_user + times.children_system
    return float(busy) - own


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
