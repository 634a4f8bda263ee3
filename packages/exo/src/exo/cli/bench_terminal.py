"""A report on the terminal, and how far a run has come: tables, and a bar or in a pipe plain lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Literal, Protocol

from rich import box, progress
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from exo.benchmark.figures import known, rate, seconds
from exo.benchmark.plan import Question, Stage
from exo.benchmark.report import Report
from exo.benchmark.results import Part, Sample
from exo.benchmark.tables import Table
from exo.types.printable import escaped

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


class Progress(Protocol):
    """Is told of each request when it begins and when it has ended."""

    def begin(self, stage: Stage, question: Question) -> None: ...
    def end(self, sample: Sample) -> None: ...


@contextlib.contextmanager
def showing_progress(requests: int) -> Iterator[Progress]:
    """Shows the requests on stderr. `requests` is how many there will be."""
    with _bar(requests) if sys.stderr.isatty() else contextlib.nullcontext(_Lines(requests)) as shown:
        yield shown


class _Lines:
    """A line for each request that has ended."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._done = 0

    def begin(self, stage: Stage, question: Question) -> None:
        pass

    def end(self, sample: Sample) -> None:
        self._done += 1
        print(f"{self._done}/{self._requests} {_told_of(sample)}: {_outcome(sample)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(requests: int) -> Iterator[Progress]:
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, bars.add_task("", total=requests))


class _Bar:
    """Names what is running; of requests at the same time only their number, as they end in any order."""

    def __init__(self, bars: progress.Progress, task: progress.TaskID) -> None:
        self._bars = bars
        self._task = task

    def begin(self, stage: Stage, question: Question) -> None:
        together = f"{escaped(stage.model)}: {stage.level} at a time"
        one = _told(stage.part, stage.model, question.name)
        self._bars.update(self._task, description=together if stage.part == "concurrency" else one)

    def end(self, sample: Sample) -> None:
        self._bars.update(self._task, advance=1)
        if sample.error is not None:
            self._bars.console.print(f"{_told_of(sample)}: {_outcome(sample)}", markup=False, highlight=False)


def _told_of(sample: Sample) -> str:
    level = f", {sample.level} at a time" if sample.part == "concurrency" else ""
    return _told(sample.part, sample.model, sample.name) + level


def _told(part: Part, model: str, name: str) -> str:
    return f"{escaped(model)}: {name}{' tokens of prompt' if part == 'lengths' else ''}"


def _outcome(sample: Sample) -> str:
    if sample.error is not None:
        return f"failed: {sample.error}"
    return f"first token after {known(sample.first_token, seconds)}, {known(sample.tokens_per_s, rate)} tokens/s"
