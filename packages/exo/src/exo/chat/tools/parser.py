"""Calls of functions apart from the answer, while the text is still coming."""

from __future__ import annotations

import re
from collections.abc import Sequence

from exo.chat.tools.cursor import Cursor, Steps
from exo.chat.tools.events import Called, NotACall, PlainText, ToolEvent
from exo.chat.tools.formats import FORMATS
from exo.chat.tools.grammars import Broken, Written
from exo.types import Tool, ToolFormat

_LONGEST_NAME = 80
"""Characters of a name that are repeated in a reason."""


class ToolParser:
    """Text in, events out. How the text is cut makes no difference, but for the pieces in which plain text comes.

    - `forced` is text with which the answer was begun for the model, as `forced_start` gives it. It counts as written
      by the model, and is part of the sources.
    - Text leaves at once, but for what may be the beginning of a marker, and white space at its end.
    - The texts and sources together are all that was fed, but for white space before and behind calls.
    - A call leaves when it is complete, of several in a list each one.
    - In a format without a marker (llama3) an object is a call only at the beginning of the answer or behind a call.
    """

    def __init__(self, format: ToolFormat, tools: Sequence[Tool], *, forced: str = "") -> None:  # noqa: A002 - the word for it
        self._format = FORMATS[format]
        self._pattern = re.compile("|".join(map(re.escape, self._format.markers)))
        self._names = frozenset(tool.name for tool in tools)
        self._cursor = Cursor()
        self._events: list[ToolEvent] = []
        self._pieces: list[str] = []
        """Text behind those events."""
        self._space: list[str] = []
        """White space behind that text, which may stand before a call."""
        self._behind_call = False
        """Nothing but white space has come since a call."""
        self._steps = self._run(forced)
        self._cursor.add(forced)

    def feed(self, text: str) -> list[ToolEvent]:
        """Take the next piece; return what is now certain."""
        self._cursor.add(text)
        return self._advance()

    def flush(self) -> list[ToolEvent]:
        """The text has ended: return what was held back. After this nothing may be fed."""
        self._cursor.ended = True
        return self._advance()

    def _advance(self) -> list[ToolEvent]:
        next(self._steps, None)
        self._end_text()
        events, self._events = self._events, []
        return events

    def _run(self, forced: str) -> Steps[None]:
        bare = self._format.bare
        sign = forced if bare else ""
        while (yield from self._cursor.more()):
            if bare:
                yield from self._cursor.space()
                self._say(self._cursor.take())
                bare = yield from self._block(sign)
                sign = ""
            else:
                marker = yield from self._text()
                bare = bool(marker) and (yield from self._block(marker)) and self._format.bare
        self._release_space()

    def _text(self) -> Steps[str]:
        """Hand on the text before the next marker, and return that; the empty text if the text ends before one."""
        while True:
            text, marker = self._cursor.before(self._pattern, self._format.markers)
            self._say(text)
            if marker or self._cursor.ended:
                return marker
            yield

    def _block(self, sign: str) -> Steps[bool]:
        """Read calls; return whether there were any, or what began like one."""
        found = False
        for item in self._format.grammar(self._cursor, sign):
            if item is None:
                yield
            else:
                self._settle(item)
                found = True
        self._say(self._cursor.take())
        return found

    def _settle(self, item: Written | Broken) -> None:
        source = self._cursor.take()
        if isinstance(item, Written) and item.name in self._names:
            self._space.clear()
            self._behind_call = True
            self._end_text()
            self._events.append(Called(item.name, item.arguments, source.strip()))
            return
        reason = f"There is no function {item.name[:_LONGEST_NAME]!r}." if isinstance(item, Written) else item.reason
        body = source.strip()
        start = source.index(body)
        self._say(source[:start])
        self._release_space()
        self._behind_call = False
        self._end_text()
        self._events.append(NotACall(body, reason))
        self._say(source[start + len(body) :])

    def _say(self, text: str) -> None:
        if self._behind_call:
            text = text.lstrip()
        if not text:
            return
        self._behind_call = False
        body = text.rstrip()
        if body:
            self._release_space()
            self._pieces.append(body)
        self._space.append(text[len(body) :])

    def _release_space(self) -> None:
        self._pieces += self._space
        self._space.clear()

    def _end_text(self) -> None:
        if text := "".join(self._pieces):
            self._events.append(PlainText(text))
        self._pieces.clear()
