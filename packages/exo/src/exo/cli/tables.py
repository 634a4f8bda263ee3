"""Tables in plain text."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """As print_plain, but on a terminal that is too narrow cells are folded. The first of `lines` has the heads."""
    if sys.stdout.isatty():
        _print_folded(lines)
    else:
        print_plain(lines)


def print_plain(lines: Sequence[Sequence[str]]) -> None:
    """Print columns side by side, two spaces apart, a line for each of `lines`, which are of the same length."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _print_folded(lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console()
    heads, *rows = lines
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for head, width in zip(heads, _widths(lines, console.width)):
        table.add_column(Text(head), overflow="fold", width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Of columns two spaces apart: folded between words. None for all if that does not fit into `room`."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in zip(*lines)]
    room -= 2 * (len(widths) - 1)
    if sum(words) > room:
        return [None] * len(widths)
    while sum(widths) > room:
        slack = [width - word for width, word in zip(widths, words)]
        widths[slack.index(max(slack))] -= 1
    return list(widths)
