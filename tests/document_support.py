"""The blocks of a Markdown page, and comparing what its commands print with what the page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MARKER = re.compile(r"<!-- not run: (.+) -->")
_HEADING = re.compile(r"#+ (.+)")
_VARYING = re.compile(r"…|\d[\d.]*|\s+")


@dataclass
class Block:
    """A fenced block. `reason` is that of the marker right before it, empty without one.

    `shown` is the block of the language `text` that follows with nothing but blank lines between: the output.
    """

    line: int
    language: str
    reason: str
    headings: tuple[str, ...]
    text: str = ""
    shown: str = field(default="")


def blocks_of(page: Path) -> list[Block]:
    """In the order of the page; those that show an output are part of the ones before."""
    found: list[Block] = []
    shows = False
    for block, follows in _fenced(page.read_text(encoding="utf-8").splitlines()):
        if block.language == "text" and follows and found and not shows:
            found[-1].shown, shows = block.text, True
        else:
            found.append(block)
            shows = False
    return found


def _fenced(lines: list[str]) -> Iterator[tuple[Block, bool]]:
    """Each block, and whether only blank lines are between it and the one before."""
    headings: list[str] = []
    reason, follows, inside = "", False, None
    for number, line in enumerate(lines, 1):
        if inside is not None:
            if line == "```":
                yield inside, follows
                reason, follows, inside = "", True, None
            else:
                inside.text += f"{line}\n"
        elif line.startswith("```"):
            inside = Block(number, line[3:], reason, tuple(headings))
        elif line:
            marker, heading = _MARKER.fullmatch(line), _HEADING.fullmatch(line)
            reason, follows = marker[1] if marker else "", False
            if heading:
                level = len(line) - len(line.lstrip("#"))
                headings = [*headings[: level - 1], heading[1]]


def not_printed(shown: str, printed: str) -> list[str]:
    """The lines that a page shows and a command has not printed.

    Numbers may differ, blanks may be more or fewer, and `…` stands for anything.
    """
    lines = printed.splitlines()
    return [line for line in shown.splitlines() if not any(_pattern(line).search(one) for one in lines)]


def _pattern(line: str) -> re.Pattern[str]:
    pieces, end = [], 0
    for found in _VARYING.finditer(line):
        stands_for = {"…": ".*", " ": r"\s+"}.get(found[0][0], r"[\d.]+")
        pieces += [re.escape(line[end : found.start()]), stands_for]
        end = found.end()
    return re.compile("".join([*pieces, re.escape(line[end:])]))
