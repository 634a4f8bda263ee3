"""What a batch tells while it runs, and the table at its end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from rkllm_converter.batch.outcome import NOT_BEGUN, Outcome
from rkllm_converter.units import duration, mb

__all__ = ["Show", "summary"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HEADS = ("NAME", "RESULT", "TIME", "SIZE", "TOKENS/S", "BOARD MEMORY")
_CLEAR = "\r\x1b[K"
_MOST_NAMES = 3
_LAST_LINES = 6


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
        self._write(f"{_CLEAR}{line if len(line) <= width else line[: max(width - 1, 0)] + '…'}")

    def _print(self, line: str) -> None:
        self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # who no longer reads ends nothing: there are hours of work
            self._stream.write(text)
            self._stream.flush()


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines of the table; below it the notes, then the errors. What many have in common is said once."""
    rows = [_HEADS, *(_row(one) for one in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    notes = [(note, one) for one in outcomes for note in one.notes]
    errors = [(one.error[1].strip() or one.error[0], one) for one in outcomes if one.error]
    for found in (notes, errors):
        if found:
            yield ""
        for text, those in _shared(found):
            yield from _told(text, those)
            yield from _logs(those) if found is errors else ()


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.name,
        outcome.status,
        "-" if outcome.status == NOT_BEGUN else duration(outcome.seconds),
        "-" if outcome.file_mb is None else mb(outcome.file_mb),
        "-" if outcome.tokens_per_s is None else f"{outcome.tokens_per_s:.1f}",
        " ".join(filter(None, ("" if outcome.memory_mb is None else mb(outcome.memory_mb), _fitting(outcome)))) or "-",
    )


def _fitting(outcome: Outcome) -> str:
    """Into the board's memory; `just` where rkllama's margin is missing."""
    if outcome.fits is None:
        return ""
    return "no" if not outcome.fits else "just" if outcome.margin_fits is False else "fits"


def _shared(found: Iterable[tuple[str, Outcome]]) -> Iterator[tuple[str, list[Outcome]]]:
    """Each text with those that have it; with … for their names and models, where it differs in these only."""
    same: dict[str, list[Outcome]] = {}
    for text, one in found:
        same.setdefault(text, []).append(one)
    alike: dict[str, list[str]] = {}
    for text, those in same.items():
        common = {_without_names(text, one) for one in those}
        alike.setdefault(common.pop() if len(common) == 1 else text, []).append(text)
    for common_text, texts in alike.items():
        yield common_text if len(texts) > 1 else texts[0], [one for text in texts for one in same[text]]


def _without_names(text: str, one: Outcome) -> str:
    for name in filter(None, (one.name, one.model)):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", text)
    return text


def _told(text: str, those: Sequence[Outcome]) -> Iterator[str]:
    """Of what has many lines, the first and the last: there a toolkit says what it did not like."""
    who = ", ".join(one.name for one in those) if len(those) <= _MOST_NAMES else f"{len(those)} conversions"
    first, *others = map(_visible, text.strip().splitlines() or [text])
    yield f"{who}: {first}"
    if len(others) > _LAST_LINES:
        yield "  ..."
    yield from (f"  {line}" for line in others[-_LAST_LINES:])


def _logs(those: Sequence[Outcome]) -> Iterator[str]:
    logs = [one.log for one in those if one.log is not None]
    if len(logs) == 1:
        yield f"  log: {_visible(logs[0])}"
    elif logs:
        yield f"  logs: {_visible(os.path.commonpath(logs))}"


def _visible(text: str) -> str:
    """A conversion's words must not steer the terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
