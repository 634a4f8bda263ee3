"""Finds the end of a JSON object in a text that comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Literal

MAX_DEPTH = 100
"""Objects and lists within each other."""

_SPACE = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'[^"\\\x00-\x1f]*')
_IN_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_HEX = frozenset("0123456789abcdefABCDEF")
_NOT_JSON = "The call is not valid JSON."

_Wanted = Literal["object", "key", "key or end", "colon", "value", "value or end", "comma or end"]


class JsonScanner:
    """Follows one object, character by character, by the grammar of RFC 8259; every character is looked at once.

    It ends with the object, `complete`, or at the first character that cannot belong to one, and then `problem` says in
    a sentence what is wrong. `keys` are those of the object itself that have come so far, as they were written; one
    that is not among `only` is a problem as well.
    """

    def __init__(self, only: Container[str] | None = None) -> None:
        self.complete = False
        self.problem = ""
        self.keys: list[str] = []
        self._only = only
        self._closers: list[str] = []
        self._wanted: _Wanted = "object"
        self._step = self._between
        self._key: list[str] | None = None
        self._scalar: list[str] = []
        self._digits = 0

    def feed(self, text: str, start: int = 0) -> int:
        """Take `text` from `start` on; return where the part ends that belongs to the object."""
        at = start
        while at < len(text) and not self.complete and not self.problem:
            at = self._step(text, at)
        return at

    def _between(self, text: str, at: int) -> int:
        """Before a string, a scalar or one of `{}[]:,`."""
        at = _end(_SPACE, text, at)
        if at == len(text):
            return at
        char, wanted = text[at], self._wanted
        if wanted in ("value", "value or end") and char not in '{["]':
            self._step = self._in_scalar
            return at
        if char == '"' and wanted not in ("object", "colon", "comma or end"):
            self._begin_string()
        elif char == "{" and wanted in ("object", "value", "value or end"):
            self._open("}", "key or end")
        elif char == "[" and wanted in ("value", "value or end"):
            self._open("]", "value or end")
        elif wanted.endswith("or end") and char == self._closers[-1]:
            self._closers.pop()
            self._end_value()
        elif char == ":" and wanted == "colon":
            self._wanted = "value"
        elif char == "," and wanted == "comma or end":
            self._wanted = "key" if self._closers[-1] == "}" else "value"
        else:
            self.problem = _NOT_JSON
            return at
        return at if self.problem else at + 1

    def _open(self, closer: str, wanted: _Wanted) -> None:
        if len(self._closers) == MAX_DEPTH:
            self.problem = f"The call is nested more than {MAX_DEPTH} deep."
            return
        self._closers.append(closer)
        self._wanted = wanted

    def _end_value(self) -> None:
        self._step = self._between
        self._wanted = "comma or end"
        self.complete = not self._closers

    def _begin_string(self) -> None:
        self._step = self._in_string
        if self._wanted.startswith("key") and len(self._closers) == 1:
            self._key = []

    def _in_string(self, text: str, at: int) -> int:
        end = _end(_IN_STRING, text, at)
        if self._key is not None:
            self._key.append(text[at:end])
        if end == len(text):
            return end
        if text[end] == '"':
            self._end_string()
        elif text[end] == "\\":
            self._step = self._in_escape
        else:
            self.problem = _NOT_JSON
            return end
        return end + 1

    def _end_string(self) -> None:
        if not self._wanted.startswith("key"):
            self._end_value()
            return
        self._step = self._between
        self._wanted = "colon"
        if self._key is not None:
            key, self._key = "".join(self._key), None
            self.keys.append(key)
            if self._only is not None and key not in self._only:
                self.problem = "The object has other keys than a call."

    def _in_escape(self, text: str, at: int) -> int:
        char = text[at]
        if char not in '"\\/bfnrtu':
            self.problem = _NOT_JSON
            return at
        if self._key is not None:
            self._key.append("\\" + char)
        self._digits = 4 if char == "u" else 0
        self._step = self._in_code if self._digits else self._in_string
        return at + 1

    def _in_code(self, text: str, at: int) -> int:
        if text[at] not in _HEX:
            self.problem = _NOT_JSON
            return at
        if self._key is not None:
            self._key.append(text[at])
        self._digits -= 1
        if not self._digits:
            self._step = self._in_string
        return at + 1

    def _in_scalar(self, text: str, at: int) -> int:
        end = _end(_IN_SCALAR, text, at)
        self._scalar.append(text[at:end])
        if end < len(text):
            scalar, self._scalar = "".join(self._scalar), []
            if _SCALAR.fullmatch(scalar):
                self._end_value()
            else:
                self.problem = _NOT_JSON
        return end


def _end(run: re.Pattern[str], text: str, start: int) -> int:
    """Where the longest run from `start` on ends; the pattern matches the empty text too."""
    found = run.match(text, start)
    return found.end() if found else start
