"""One conversion in a process of its own: its lines as they come, its answer at the end, and how it is stopped."""

from __future__ import annotations

import codecs
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from rkllm_converter.children import exit_code, kill_group, spawn

__all__ = ["Ended", "Stop", "run"]

_TURN = 0.2
"""Seconds between two looks at whether it is still there."""
_GRACE = 20.0
"""Seconds that a conversion gets to clean up, once it has been told to end."""
_CHUNK = 65536
_LONGEST_ANSWER = 1 << 20
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


class Stop:
    """Whether the batch has been told to end: the first signal that said so, and whether another has come since."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_urgent = False

    def __call__(self, number: int, _frame: object = None) -> None:
        """The signals' handler. Nothing is raised: the loop below looks."""
        self.is_urgent = self.signal is not None
        self.signal = self.signal or number


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is negative for a signal. `answer` is its stdout."""

    code: int
    answer: str
    seconds: float


def run(command: Sequence[str], *, heard: Callable[[str], None], stop: Stop, grace: float = _GRACE) -> Ended:
    """Runs until the child is gone. `heard` gets each line of its stderr.

    When `stop` has been called the child gets the same signal, and after `grace` seconds, or a second call, SIGKILL.
    It has a session of its own, else Ctrl-C would reach it twice. To be called from the main thread, see `spawn`.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as answer:  # a pipe would fill up while nobody reads it
        child = spawn(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, start_new_session=True)
        with child:
            try:
                _follow(child, heard, stop, grace)
            finally:  # after an error in `heard` too: no conversion outlives its batch
                kill_group(child)
        answer.seek(0)
        text = answer.read(_LONGEST_ANSWER).decode("utf-8", "replace")
    return Ended(child.returncode, text, time.monotonic() - began)


def _follow(child: subprocess.Popen[str], heard: Callable[[str], None], stop: Stop, grace: float) -> None:
    """Until it has ended: its stderr may stay open in what it has left behind."""
    assert child.stderr is not None  # noqa: S101 - it is a pipe
    lines, patience = _Lines(child.stderr, heard), None
    while exit_code(child, 0) is None:
        lines.read(_TURN)
        if stop.signal is not None:
            if patience is None:
                patience = time.monotonic() + grace
                child.send_signal(stop.signal)
            elif stop.is_urgent or time.monotonic() > patience:
                break
    kill_group(child)
    while lines.read(0):
        pass
    lines.finish()


class _Lines:
    """Cuts what comes through a pipe into lines."""

    def __init__(self, pipe: IO[str], heard: Callable[[str], None]) -> None:
        self._number = pipe.fileno()
        self._heard = heard
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""
        self._is_open = True

    def read(self, timeout: float) -> bool:
        """Waits for more, at most `timeout` seconds. False if nothing came."""
        if not self._is_open:
            time.sleep(timeout)
            return False
        if not select.select([self._number], [], [], timeout)[0]:
            return False
        data = os.read(self._number, _CHUNK)
        self._is_open = bool(data)
        *whole, self._begun = _LINE_ENDS.split(self._begun + self._decoder.decode(data))
        self._tell(whole)
        return self._is_open

    def finish(self) -> None:
        """What came last need not end like a line."""
        self._tell([self._begun + self._decoder.decode(b"", final=True)])

    def _tell(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line.strip():
                self._heard(line.rstrip())
