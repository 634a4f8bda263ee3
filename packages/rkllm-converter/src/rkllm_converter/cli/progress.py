"""How far a conversion is, on stderr: a line for each step, and for each tenth of a download."""

from __future__ import annotations

import sys

__all__ = ["Lines"]

_MB = 1 << 20


class Lines:
    """A Watcher that prints."""

    def __init__(self) -> None:
        self._tenths = -1

    def phase(self, words: str) -> None:
        self._tenths = -1
        self._print(words)

    def progress(self, done: int, total: int) -> None:
        tenths = done * 10 // total if total else 10
        if tenths != self._tenths:
            self._tenths = tenths
            self._print(f"  {tenths * 10} % of {total / _MB:,.0f} MB")

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
