"""Files of calibration data: texts, JSON and JSON lines, told apart by their ending and content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rkllm_converter.calibration.chats import Entry, Wrong, entry_of, text_of
from rkllm_converter.errors import BadCalibration

__all__ = ["LARGEST_FILE", "read"]

LARGEST_FILE = 64 << 20
"""Bytes. A conversion uses some dozens of entries."""
_LINES = (".jsonl", ".ndjson")
_LEGAL = (".txt", ".json", *_LINES)
_BLANK = re.compile(r"\s*")


class _Raw(NamedTuple):
    """A value of JSON with where it stands: its line in the file, and its place in a list, or nothing."""

    line: int
    path: str
    value: object


def read(path: Path) -> list[Entry]:
    """The entries of a file, in its order. Raises BadCalibration with the line of what is wrong.

    - `.txt`: paragraphs with blank lines between, each a prompt without an answer
    - `.jsonl`, `.ndjson`: an object on each line
    - `.json`: a list of objects, or objects one after the other
    - any other ending is refused: a table, say, would be taken for one long prompt
    """
    suffix = path.suffix.lower()
    if suffix not in _LEGAL:
        raise BadCalibration(
            f"{path}: its ending has to be one of {', '.join(_LEGAL)}, which tell what is in it. Rename or convert it."
        )
    text = _text(path)
    try:
        if suffix != ".txt":
            entries = [_entry(path, raw) for raw in _values(path, text, by_line=suffix in _LINES)]
        else:
            entries = [_paragraph(path, *found) for found in _paragraphs(text)]
    except RecursionError as error:
        raise BadCalibration(f"{path}: the JSON is nested too deep. Mend the file.") from error
    if not entries:
        raise BadCalibration(f"{path}: there is nothing in it. Give prompts or chats, or leave --dataset out.")
    return entries


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise BadCalibration(f"{path}: there is no such file. Correct --dataset.")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadCalibration(f"{path} cannot be read: {error}. Correct --dataset.") from error
    if len(data) > LARGEST_FILE:
        raise BadCalibration(f"{path}: it has more than {LARGEST_FILE >> 20} MB. Take some hundred entries out of it.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadCalibration(
            f"{path}, line {line}: it is not UTF-8 (byte {data[error.start]:#04x}). Save it as UTF-8 text."
        ) from error


def _values(path: Path, text: str, *, by_line: bool) -> Iterator[_Raw]:
    start = _after_blank(text, 0)
    try:
        if text[start : start + 1] == "[":
            yield from _items(text, start)
        elif by_line:
            yield from _by_line(text)
        else:
            yield from _one_after_the_other(text, start)
    except json.JSONDecodeError as error:
        raise BadCalibration(
            f"{path}, line {error.lineno}, column {error.colno}: {error.msg}. It is no JSON. Mend that line."
        ) from error
    except ValueError as error:  # numbers of thousands of digits
        raise BadCalibration(f"{path}: {error}. Mend the file.") from error


def _items(text: str, start: int) -> Iterator[_Raw]:
    """The items of a list, with their lines, which the json module does not tell."""
    decoder, line, before, number = json.JSONDecoder(), 1, 0, 0
    at = _after_blank(text, start + 1)
    goes_on = text[at : at + 1] != "]"
    while goes_on:
        line += text.count("\n", before, at)
        value, end = decoder.raw_decode(text, at)
        yield _Raw(line, f"[{number}]", value)
        before, at, number = at, _after_blank(text, end), number + 1
        goes_on = text[at : at + 1] == ","
        at = _after_blank(text, at + 1) if goes_on else at
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
    rest = _after_blank(text, at + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _by_line(text: str) -> Iterator[_Raw]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _Raw(number, "", json.loads(line))
        except json.JSONDecodeError as error:
            error.lineno = number
            raise


def _one_after_the_other(text: str, at: int) -> Iterator[_Raw]:
    decoder, line, before = json.JSONDecoder(), 1, 0
    while at < len(text):
        line += text.count("\n", before, at)
        value, end = decoder.raw_decode(text, at)
        yield _Raw(line, "", value)
        before, at = at, _after_blank(text, end)


def _entry(path: Path, raw: _Raw) -> Entry:
    try:
        return entry_of(raw.value)
    except Wrong as error:
        raise _wrong(path, raw.line, error, raw.path) from error


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Each with the number of its first line."""
    begin, held = 1, list[str]()
    for number, line in enumerate((*text.split("\n"), ""), 1):
        if line.strip():
            held.append(line)
            continue
        if held:
            yield begin, "\n".join(held).strip()
        begin, held = number + 1, []


def _paragraph(path: Path, line: int, text: str) -> Entry:
    try:
        return text_of(text)
    except Wrong as error:
        raise _wrong(path, line, error) from error


def _wrong(path: Path, line: int, error: Wrong, item: str = "") -> BadCalibration:
    key = f"{item}.{error.path}" if item and error.path else item + error.path
    return BadCalibration(f"{path}, line {line}{f', {key}' if key else ''}: {error.why}. Mend or remove the entry.")


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at
