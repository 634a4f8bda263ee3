"""Reasoning apart from the answer, while the text is still coming."""

from __future__ import annotations

from exo.types import ThinkingMarkers


class ReasoningSplitter:
    """Text in, `(reasoning, answer)` out. How the text is cut makes no difference, and no part of a marker gets out.

    - The text begins as answer, or as reasoning with `inside` (the prompt ended with the open marker). Every open
      marker begins a further block; the blocks' reasoning is joined as it is.
    - White space is dropped directly after an open marker, before the close marker, and directly after it.
    - A close marker without an open one (some models leave the open one out) only vanishes, with the white space after
      it: what came before has gone out as answer, and cannot be called back.
    - An open marker inside a block is text, but right at the block's beginning it vanishes: models repeat the one that
      the prompt has given them.
    - A block that is never closed stays reasoning to its last character.
    """

    def __init__(self, markers: ThinkingMarkers, *, inside: bool = False) -> None:
        self._open, self._close = markers.open, markers.close
        self._markers = tuple(marker for marker in (markers.open, markers.close) if marker)
        self._signs = "".join({marker[0] for marker in self._markers})
        self._sign = self._signs[:1] if len(self._signs) == 1 else ""
        self._inside = inside
        self._trimming = inside
        """Only white space has come since the last marker."""
        self._held = ""
        self._plain = not inside
        """Nothing held, nothing to trim: text without the beginning of a marker passes as it is."""

    @property
    def inside(self) -> bool:
        """Whether what comes next is reasoning, as far as is known now."""
        return self._inside

    def feed(self, text: str) -> tuple[str, str]:
        """Take the next piece; return what is now certain to be reasoning and what is certain to be answer."""
        if self._plain and (self._sign not in text if self._sign else not any(sign in text for sign in self._signs)):
            if not self._inside:
                return "", text
            if not text[-1:].isspace():
                return text, ""
        self._held += text
        reasoning = answer = ""
        while (found := self._first_marker()) is not None:
            start, end = found
            before, marker, self._held = self._held[:start], self._held[start:end], self._held[end:]
            if self._inside:
                reasoning += self._trimmed(before.rstrip())
            else:
                answer += self._trimmed(before)
            self._inside = marker == self._open and (marker != self._close or not self._inside)
            self._trimming = True
        certain = self._certain()
        if self._inside:
            reasoning += certain
        else:
            answer += certain
        self._plain = not (self._trimming or self._held)
        return reasoning, answer

    def flush(self) -> tuple[str, str]:
        """The text has ended: return what was held back for a marker that never came."""
        rest, self._held = self._trimmed(self._held), ""
        return (rest, "") if self._inside else ("", rest)

    def _first_marker(self) -> tuple[int, int] | None:
        """Start and end of the marker that is complete first, the longest of several that end there."""
        held = self._held
        found = []
        for marker in self._markers:
            start = held.find(marker)
            if start >= 0 and (marker == self._close or not self._inside or self._begins_block(held[:start])):
                found.append((start + len(marker), start))
        if not found:
            return None
        end, start = min(found)
        return start, end

    def _begins_block(self, before: str) -> bool:
        return self._trimming and not before.strip()

    def _certain(self) -> str:
        """Take from the held text all that cannot be part of a marker, nor of white space before a close marker."""
        cut = len(self._held) - self._partial_length()
        body = self._held[:cut]
        if self._inside:
            body = body.rstrip()
            cut = len(body)
        self._held = self._held[cut:]
        return self._trimmed(body)

    def _trimmed(self, text: str) -> str:
        if self._trimming:
            text = text.lstrip()
            self._trimming = not text
        return text

    def _partial_length(self) -> int:
        """Length of the longest end of the held text with which a marker begins."""
        if not self._markers:
            return 0
        held = self._held
        for length in range(min(len(held), max(map(len, self._markers)) - 1), 0, -1):
            tail = held[-length:]
            if any(marker.startswith(tail) and len(marker) > length for marker in self._markers):
                return length
        return 0
