"""Bytes of generated tokens to text: a character may be split over several tokens."""

from __future__ import annotations

import codecs


class Utf8Joiner:
    """Holds back the bytes of an unfinished character; bytes that can never be UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """Take the bytes of the next token; return the characters that are complete."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The text has ended: an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
