"""How far a conversion is: a line for each step, and for each tenth of a download."""

from __future__ import annotations

import sys
from typing import TextIO

from rkllm_converter.cli.saying import say
from rkllm_converter.preflight import Preflight
from rkllm_converter.units import MB, mb

__all__ = ["ProgressLines"]


class ProgressLines:
    """A Watcher that prints: on stderr, and what to expect of the model on `report_to`.

    `problems` are the kinds that the pre-flight has found.
    """

    def __init__(self, report_to: TextIO) -> None:
        self._report_to = report_to
        self.problems: tuple[str, ...] = ()
        self._tenths = -1

    def phase(self, words: str) -> None:
        self._tenths = -1
        say(words, sys.stderr)

    def progress(self, done: int, total: int) -> None:
        tenths = done * 10 // total if total else 10
        if tenths != self._tenths:
            self._tenths = tenths
            say(f"  {tenths * 10} % of {mb(total / MB)}", sys.stderr)

    def expect(self, report: Preflight) -> None:
        self.problems = tuple(report.problems)
        for line in report.lines():
            say(line, self._report_to)

    def note(self, words: str) -> None:
        say(f"  {words}", sys.stderr)
