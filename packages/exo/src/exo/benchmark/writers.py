"""A report as Markdown, CSV and JSON. The HTML page is in exo.benchmark.page."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import msgspec

from exo.benchmark.report import Report
from exo.benchmark.statistics import Spread

_SPREADS = (
    "first_token",
    "first_answer",
    "tokens_per_s",
    "completion_tokens",
    "total",
    "prompt_tokens",
    "prefill_tokens_per_s",
)
_RATIOS = ("first_token", "tokens_per_s", "total", "prefill_tokens_per_s", "total_tokens_per_s")


def as_json(report: Report) -> bytes:
    """The run with every request, the sums and the comparison; exo.benchmark.results reads it again."""
    document: dict[str, Any] = {
        **msgspec.to_builtins(report.run),
        "summary": msgspec.to_builtins(report.summaries),
        "comparison": msgspec.to_builtins(report.comparison),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def as_markdown(report: Report) -> str:
    lines = ["# exo bench", ""]
    lines += [f"- {name}: {_cell(value)}" for name, value in report.facts]
    if report.notes:
        lines += ["", *(f"> {_cell(note)}\n" for note in report.notes)]
    for table in report.tables:
        numbers = len(table.head) - table.words
        lines += ["", f"## {table.title}", "", _cell(table.note), ""]
        lines += [_row(table.head), _row(["---"] * table.words + ["---:"] * numbers, plain=True)]
        lines += [_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def as_csv(report: Report) -> str:
    """A line for each sum: times in seconds, `_ratio` is now / before."""
    ratios = {(one.part, one.model, one.name): one for one in report.comparison.ratios} if report.comparison else {}
    fields = [field for field in Spread.__struct_fields__ if field != "count"]
    head = ["part", "model", "name", "requests", "errors"]
    head += [f"{name}_{field}" for name in _SPREADS for field in fields] + ["total_tokens_per_s"]
    head += [f"{name}_ratio" for name in _RATIOS] if report.comparison else []
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(head)
    for one in report.summaries:
        row: list[object] = [one.part, _harmless(one.model), one.name, one.requests, one.errors]
        for name in _SPREADS:
            values: Spread | None = getattr(one, name)
            row += [None if values is None else getattr(values, field) for field in fields]
        row.append(one.total_tokens_per_s)
        if report.comparison:
            ratio = ratios.get((one.part, one.model, one.name))
            row += [getattr(ratio, name, None) for name in _RATIOS]
        lines.writerow(row)
    return written.getvalue()


def _row(cells: tuple[str, ...] | list[str], *, plain: bool = False) -> str:
    return f"| {' | '.join(cell if plain else _cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """One line, in which nothing is Markdown or HTML: names and messages come from strangers."""
    return re.sub(r"([\\`*_{}\[\]<>|~#!&])", r"\\\1", " ".join(text.split()))


def _harmless(text: str) -> str:
    """A spreadsheet takes what begins like this for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
