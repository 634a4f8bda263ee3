"""How calls are written, one function for each format.

Such a function is given what has shown that a call is meant, a marker as a rule, and reads on behind it. It yields a
Written for every call, a Broken where a call cannot be one, and None wherever it needs more text. It returns behind the
last call, or where no call has begun after all: what it has read since its last Written or Broken is text then.

A call begins with the brace of its object: a marker without one is text, somebody may be writing about markers. A call
whose object is complete counts, even if the text ends before the call is closed.
"""

# ruff: noqa: RUF001 - the bars in the tokens of DeepSeek are full-width ones

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, TypeAlias, TypeVar

import msgspec

from exo.chat.tools.cursor import Cursor
from exo.chat.tools.json_scanner import JsonScanner

__all__ = ["Broken", "Reading", "Written", "deepseek", "hermes", "llama3", "mistral", "phi"]

CUT_OFF = "The text ends inside the call."
NOT_CLOSED = "The call is followed by something else than its end."

_NAME = re.compile(r"[\w.:/-]+")
_KEYS = frozenset(("name", "arguments", "parameters", "type", "id"))


class Written(msgspec.Struct, frozen=True):
    """A call as it was written. Whether there is such a function is not known here; `arguments` is a JSON object."""

    name: str
    arguments: str


class Broken(msgspec.Struct, frozen=True):
    """What has been read is no call. `reason` is a sentence."""

    reason: str


T = TypeVar("T")
_Part: TypeAlias = Generator[Written | Broken | None, None, T]
Reading: TypeAlias = Iterator[Written | Broken | None]


def hermes(cursor: Cursor, marker: str) -> Reading:
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`. Before a further `<tool_call>` the end may be missing."""
    yield from _single(cursor, "</tool_call>", marker)


_PYTHON_TAG = "<|python_tag|>"


def llama3(cursor: Cursor, marker: str) -> Reading:
    """`{"name": …, "parameters": {…}}`; without a marker it is a call only if it has these keys and no foreign ones.

    Without a marker it may also be a further call of the answer, behind a `;`.
    """
    if not marker:
        if (yield from cursor.word(";")):
            yield from cursor.space()
        if (yield from cursor.sees(_PYTHON_TAG)) == _PYTHON_TAG:
            marker = yield from cursor.word(_PYTHON_TAG)
    yield from cursor.space()
    if not (yield from cursor.more()):
        if marker:
            yield Broken(CUT_OFF)
        return
    if cursor.char != "{":
        return
    scanner = JsonScanner(only=None if marker else _KEYS)
    text = yield from cursor.scan(scanner)
    if marker or ("name" in scanner.keys and not {"arguments", "parameters"}.isdisjoint(scanner.keys)):
        yield _call_in(text) if scanner.complete else Broken(scanner.problem or CUT_OFF)


def mistral(cursor: Cursor, marker: str) -> Reading:
    """`[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]`, or newer `[TOOL_CALLS]name[ARGS]{…}` with or without ARGS."""
    yield from cursor.space()
    if (yield from cursor.sees(marker)) == marker:
        return
    if (yield from cursor.word("[")):
        yield from _list(cursor, "")
        return
    name = yield from cursor.run(_NAME)
    if name:
        if (yield from cursor.word("[CALL_ID]")):
            yield from cursor.run(_NAME)
        yield from cursor.word("[ARGS]")
    text = yield from _object(cursor)
    if text:
        yield _checked(name, text) if name else _call_in(text)


_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"


def deepseek(cursor: Cursor, marker: str) -> Reading:
    """A type, the separator, the name and the arguments in a code block; or the name, the separator, the arguments."""
    if marker == _CALLS_BEGIN:
        yield from cursor.space()
        if not (yield from cursor.word(_CALL_BEGIN)):
            if not (yield from cursor.more()):
                yield Broken(CUT_OFF)
            return
    yield from cursor.space()
    name = yield from cursor.run(_NAME)
    if not (yield from cursor.word(_SEPARATOR)) and (yield from cursor.more()):
        return
    yield from cursor.space()
    name = (yield from cursor.run(_NAME)) or name
    yield from cursor.space()
    if (yield from cursor.word("```")):
        yield from cursor.word("json")
    text = yield from _object(cursor)
    if not text:
        return
    yield from cursor.space()
    if (yield from cursor.word("```")):
        yield from cursor.space()
    closed = yield from cursor.word(_CALL_END)
    yield from cursor.space()
    last = yield from cursor.word(_CALLS_END)
    if closed or last or not (yield from cursor.more()) or (yield from cursor.sees(_CALL_BEGIN)):
        yield _checked(name, text)
    else:
        yield Broken(NOT_CLOSED)


def phi(cursor: Cursor, marker: str) -> Reading:
    """`<|tool_call|>[{"name": …, "arguments": {…}}, …]<|/tool_call|>`, with one object too, or `functools[{…}, …]`."""
    if marker.endswith("["):
        yield from _list(cursor, "")
        return
    yield from cursor.space()
    if (yield from cursor.word("[")):
        yield from _list(cursor, "<|/tool_call|>")
    else:
        yield from _single(cursor, "<|/tool_call|>", marker)


def _single(cursor: Cursor, close: str, marker: str) -> Reading:
    """A call behind `marker`, and its end."""
    text = yield from _object(cursor)
    if not text:
        return
    yield from cursor.space()
    if (yield from cursor.word(close)) or not (yield from cursor.more()) or (yield from cursor.sees(marker)):
        yield _call_in(text)
    else:
        yield Broken(NOT_CLOSED)


def _list(cursor: Cursor, close: str) -> Reading:
    """Calls in a list whose bracket has been read, with or without commas, and behind it `close` if it is there."""
    while True:
        text = yield from _object(cursor)
        if not text:
            return
        yield from cursor.space()
        mark = yield from cursor.word(",", "]")
        if mark == "]" and close:
            yield from cursor.space()
            yield from cursor.word(close)
        elif not mark and (yield from cursor.more()) and cursor.char != "{":
            yield Broken(NOT_CLOSED)
            return
        yield _call_in(text)
        if mark == "]" or not (yield from cursor.more()):
            return


def _object(cursor: Cursor) -> _Part[str]:
    """White space and an object. The empty text where none begins, and, behind a Broken, where it has no end."""
    yield from cursor.space()
    if not (yield from cursor.more()):
        yield Broken(CUT_OFF)
        return ""
    if cursor.char != "{":
        return ""
    scanner = JsonScanner()
    text = yield from cursor.scan(scanner)
    if scanner.complete:
        return text
    yield Broken(scanner.problem or CUT_OFF)
    return ""


class _Call(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


def _call_in(text: str) -> Written | Broken:
    """The call that an object with a name and arguments is."""
    try:
        call = msgspec.json.decode(text, type=_Call)
    except msgspec.ValidationError:
        return Broken("The name of the function is no text.")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Broken("The call cannot be read as JSON.")
    return _checked(call.name, (bytes(call.arguments) or bytes(call.parameters)).decode())


def _checked(name: str, arguments: str) -> Written | Broken:
    if not name:
        return Broken("The call names no function.")
    if not arguments:
        return Broken("The call has no arguments.")
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return Broken("The arguments are no JSON object.")
    return Written(name, arguments)
