"""A report on the terminal, and how far a run has come: tables, and a bar or in a pipe plain lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Literal

from rich import box, progress
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from exo.benchmark.figures import known, rate, seconds
from exo.benchmark.report import Report
from exo.benchmark.results import Sample
from exo.benchmark.runner import Record
from exo.benchmark.tables import Table

_MODEL = "Model"
"""The column that says nothing where there is one model, which is named above the tables."""
_WIDE = 400
"""Columns where no terminal sets a limit: no cell is folded."""


def print_report(report: Report) -> None:
    """To stdout."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)
    for name, value in report.facts:
        console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"Note: {note}"), style="yellow", soft_wrap=True)
    for table in report.tables:
        console.print()
        console.print(Text(table.title), style="bold")
        console.print(Text(table.note), style="dim", soft_wrap=not console.is_terminal)
        console.print(_fitting(console, table, hidden=_MODEL if len(report.run.settings.models) == 1 else ""))


def _fitting(console: Console, table: Table, *, hidden: str) -> RichTable:
    """In a narrow window each spread stands below its number."""
    drawn = _drawn(table, hidden=hidden, stacked=False)
    fits = Measurement.get(console, console.options.update(max_width=_WIDE), drawn).maximum <= console.width
    return drawn if fits else _drawn(table, hidden=hidden, stacked=True)


def _drawn(table: Table, *, hidden: str, stacked: bool) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    shown = [number for number, head in enumerate(table.head) if head != hidden or number == 0]
    for number in shown:
        side: Literal["left", "right"] = "left" if number < table.words else "right"
        drawn.add_column(Text(table.head[number]), justify=side, overflow="fold")
    bracket = "\n(" if stacked else " ("
    for row in table.rows:
        words, numbers = row[: table.words], [cell.replace(" (", bracket) for cell in row[table.words :]]
        cells = (*words, *numbers)
        drawn.add_row(*(Text(cells[number]) for number in shown))
    return drawn


@contextlib.contextmanager
def showing_progress(requests: int) -> Iterator[Record]:
    """Takes each request's outcome and shows it on stderr. `requests` is how many there will be."""
    with _bar(requests) if sys.stderr.isatty() else contextlib.nullcontext(_Lines(requests)) as record:
        yield record


class _Lines:
    """A line for each request."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._done = 0

    def __call__(self, sample: Sample) -> None:
        self._done += 1
        print(f"{self._done}/{self._requests} {_told(sample)}: {_outcome(sample)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(requests: int) -> Iterator[Record]:
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("warm-up", total=requests)

        def record(sample: Sample) -> None:
            bars.update(task, advance=1, description=_told(sample))
            if sample.error is not None:
                bars.console.print(f"{_told(sample)}: {_outcome(sample)}", markup=False, highlight=False)

        yield record


def _told(sample: Sample) -> str:
    level = f", {sample.level} at a time" if sample.part == "concurrency" else ""
    length = " tokens of prompt" if sample.part == "lengths" else ""
    return f"{sample.model}: {sample.name}{length}{level}"


def _outcome(sample: Sample) -> str:
    if sample.error is not None:
        return f"failed: {sample.error}"
    return f"first token after {known(sample.first_token, seconds)}, {known(sample.tokens_per_s, rate)} tokens/s"
