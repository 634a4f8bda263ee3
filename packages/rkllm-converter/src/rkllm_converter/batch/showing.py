"""What a batch tells while it runs, and the table at its end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

from rkllm_converter.batch.outcome import FAILED, GOOD, NOT_BEGUN, Outcome

__all__ = ["Show", "duration", "summary"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HEADS = ("NAME", "RESULT", "TIME", "SIZE", "TOKENS/S")
_CLEAR = "\r\x1b[K"
_MINUTE, _HOUR = 60, 3600


class Show:
    """Progress, a line for each step; on a terminal one line for each conversion, which changes until its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._title = ""

    def began(self, number: int, count: int, name: str) -> None:
        self._title = f"[{number}/{count}] {name}"
        if self._is_terminal:
            self._change("")
        else:
            self._print(self._title)

    def heard(self, line: str) -> None:
        """A line of the conversion's progress."""
        text = _visible(line)
        if self._is_terminal:
            self._change(text)
        else:
            self._print(f"  {text}")

    def ended(self, outcome: Outcome) -> None:
        words = f"{outcome.status} after {duration(outcome.seconds)}"
        if self._is_terminal:
            self._change(words)
            self._print("")
        else:
            self._print(f"  {words}")

    def told(self, text: str) -> None:
        """Something beside the progress, which stays."""
        self._print(f"{_CLEAR if self._is_terminal else '  '}{_visible(text)}")

    def _change(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = f"{self._title}  {text}" if text else self._title
        self._stream.write(f"{_CLEAR}{line if len(line) <= width else line[: max(width - 1, 0)] + '…'}")
        self._stream.flush()

    def _print(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines of the table, and below it what there is to know of those that are not as they should be."""
    rows = [_HEADS, *(_row(one) for one in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    notes = [note for one in outcomes for note in _notes(one)]
    if notes:
        yield ""
        yield from notes


def duration(seconds: float) -> str:
    """`41 s`, `12 min 5 s`, `3 h 20 min`; `0.4 s` below ten."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.name,
        outcome.status,
        "-" if outcome.status == NOT_BEGUN else duration(outcome.seconds),
        "-" if outcome.file_mb is None else f"{outcome.file_mb:.{0 if outcome.file_mb >= 10 else 1}f} MB",
        "-" if outcome.tokens_per_s is None else f"{outcome.tokens_per_s:.1f}",
    )


def _notes(outcome: Outcome) -> Iterator[str]:
    if outcome.status == FAILED and outcome.error is not None:
        lines = outcome.error[1].strip().splitlines() or [outcome.error[0]]
        yield f"{outcome.name}: {_visible(lines[0])}{' ...' if len(lines) > 1 else ''}"
        if outcome.log is not None:
            yield f"  log: {_visible(outcome.log)}"
    elif outcome.status in GOOD and outcome.fits is False:
        yield f"{outcome.name}: it is not expected to fit into the board's memory."


def _visible(text: str) -> str:
    """A conversion's words must not steer the terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
