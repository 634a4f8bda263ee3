"""Sizes, times and tables: with rich on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import MINYEAR, datetime

from exo.cli.tables import print_plain

_UNITS = ("B", "KB", "MB", "GB", "TB")
_FAR = 365 * 86_400


def bytes_text(size: int) -> str:
    """1.9 GB, as Ollama counts: a kilobyte has 1000 bytes."""
    number, unit = float(size), 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.3g} {_UNITS[unit]}" if number < 100 else f"{number:.0f} {_UNITS[unit]}"


def age(moment: str, now: datetime) -> str:
    """`3 hours ago`; nothing for a time that is not known."""
    found = _moment(moment)
    return "" if found is None else f"{_span((now - found).total_seconds())} ago"


def until(moment: str, now: datetime) -> str:
    """`in 4 minutes`, or `for ever`."""
    found = _moment(moment)
    if found is None:
        return ""
    seconds = (found - now).total_seconds()
    return "for ever" if seconds > _FAR else f"in {_span(seconds)}" if seconds > 0 else "now"


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns side by side. On a terminal too narrow for them they are folded; in a pipe every row is one line."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - only for a terminal
        from rich.table import Table  # noqa: PLC0415 - as above

        table = Table(box=None, pad_edge=False, show_header=bool(heads), header_style="bold")
        for column in range(len(rows[0]) if rows else len(heads)):
            table.add_column(heads[column] if heads else "", overflow="fold")
        for row in rows:
            table.add_row(*map(_escaped, row))
        Console().print(table)
        return
    print_plain([heads, *rows] if heads else rows)


def _escaped(text: str) -> str:
    from rich.markup import escape  # noqa: PLC0415 - only for a terminal

    return escape(text)


def _moment(text: str) -> datetime | None:
    """RFC 3339, with more digits of a second than Python 3.10 reads; None also for Ollama's unknown time, year 1."""
    head, _, rest = text.partition(".")
    zone = rest.lstrip("0123456789")
    try:
        found = datetime.fromisoformat(f"{head}{zone}".replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo and found.year > MINYEAR else None


def _span(seconds: float) -> str:
    for length, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        number = int(seconds // length)
        if number >= 1:
            return f"{number} {name}{'s' if number > 1 else ''}"
    return "less than a second"
