"""How far a pull has come: bars on a terminal, lines in a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from exo.models import Progress, Report


@contextlib.contextmanager
def showing_progress() -> Iterator[Report]:
    """A report that shows each step on stderr."""
    with _bars() if sys.stderr.isatty() else contextlib.nullcontext(_Lines()) as report:
        yield report


class _Lines:
    """Shows steps in a pipe or a log: one line for each, and for each tenth of a file."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, step: Progress) -> None:
        tenths = f" {step.completed * 10 // step.total * 10} %" if step.total and step.completed is not None else ""
        line = step.status + tenths
        if line != self._last:
            self._last = line
            print(line, file=sys.stderr)


@contextlib.contextmanager
def _bars() -> Iterator[Report]:
    """Shows steps on a terminal: a bar for each file."""
    from rich import console, progress  # noqa: PLC0415 - loaded only on a terminal

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True)) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def report(step: Progress) -> None:
            if not step.file:
                bars.console.print(step.status, markup=False, highlight=False)
                return
            if step.file not in tasks:
                tasks[step.file] = bars.add_task(step.status, total=step.total)
            bars.update(tasks[step.file], total=step.total, completed=step.completed)

        yield report
