"""The place in a model's text up to which it has been read."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import TypeAlias, TypeVar

from exo.chat.tools.json_scanner import JsonScanner

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""Reading that stops wherever it needs to know what comes next, and goes on when more text, or the end, has come."""

_SPACE = re.compile(r"\s+")


class Cursor:
    """Reads a text that comes in pieces. What is read is kept until it is taken; what is not read yet is short."""

    def __init__(self) -> None:
        self.ended = False
        """No more text will come."""
        self._text = ""
        self._at = 0
        self._read: list[str] = []

    @property
    def char(self) -> str:
        """The next character; only after `more`."""
        return self._text[self._at]

    def add(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    def take(self) -> str:
        """All that has been read since the last time."""
        taken, self._read = "".join(self._read), []
        return taken

    def more(self) -> Steps[bool]:
        """Whether there is a next character."""
        while self._at == len(self._text):
            if self.ended:
                return False
            yield
        return True

    def run(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Read as many characters as `pattern`, one kind of character repeated, has in a row."""
        pieces = []
        while (yield from self.more()):
            found = pattern.match(self._text, self._at)
            if found is None:
                break
            pieces.append(self._advance(found.end()))
        return "".join(pieces)

    def space(self) -> Steps[str]:
        """Read white space."""
        return (yield from self.run(_SPACE))

    def sees(self, *words: str) -> Steps[str]:
        """The one of `words` that comes next, which is not read; none of them: the empty text.

        Where the text ends inside a word, the part that is there counts as the word.
        """
        while True:
            for word in words:
                if self._text.startswith(word, self._at):
                    return word
            rest = self._text[self._at : self._at + max(map(len, words))]
            if not any(word.startswith(rest) for word in words):
                return ""
            if self.ended:
                return rest
            yield

    def word(self, *words: str) -> Steps[str]:
        """Read the one of `words` that comes next, as `sees` tells it."""
        found = yield from self.sees(*words)
        self._advance(self._at + len(found))
        return found

    def scan(self, scanner: JsonScanner) -> Steps[str]:
        """Read an object, to its end or as far as it is one."""
        pieces = []
        while not scanner.complete and not scanner.problem and (yield from self.more()):
            pieces.append(self._advance(scanner.feed(self._text, self._at)))
        return "".join(pieces)

    def before(self, pattern: re.Pattern[str], words: Sequence[str]) -> tuple[str, str]:
        """The text before the first of `words`, and that word, which alone counts as read.

        As long as none has come: all the text that cannot be part of one, and the empty text. `pattern` finds `words`.
        """
        found = pattern.search(self._text, self._at)
        if found is not None:
            before = self._text[self._at : found.start()]
            self._at = found.start()
            return before, self._advance(found.end())
        end = len(self._text) - (0 if self.ended else self._partial_length(words))
        before, self._at = self._text[self._at : end], end
        return before, ""

    def _partial_length(self, words: Sequence[str]) -> int:
        """Length of the longest end of the text with which one of `words` begins."""
        longest = min(len(self._text) - self._at, max(map(len, words)) - 1)
        for length in range(longest, 0, -1):
            tail = self._text[-length:]
            if any(word.startswith(tail) for word in words):
                return length
        return 0

    def _advance(self, end: int) -> str:
        piece, self._at = self._text[self._at : end], end
        self._read.append(piece)
        return piece
