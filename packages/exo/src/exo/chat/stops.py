"""Stop strings that may lie across token borders."""

from __future__ import annotations

from collections.abc import Iterable


class StopStrings:
    """Passes text through until a stop string is complete, and never lets out a part of one.

    The answer does not depend on how the text is cut: it ends before the stop string that is complete first, and of
    several that are complete at the same character before the longest.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self._hit: str | None = None

    @property
    def hit(self) -> str | None:
        """The stop string that ended the text, or None so far."""
        return self._hit

    def feed(self, text: str) -> str:
        """Take the next piece; return what is now certain to be part of the answer (often all of it)."""
        if self._hit is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        match = self._first_match()
        if match is not None:
            start, self._hit = match
            released, self._held = self._held[:start], ""
            return released
        cut = len(self._held) - self._partial_length()
        released, self._held = self._held[:cut], self._held[cut:]
        return released

    def flush(self) -> str:
        """The text has ended: return what was held back for a stop string that never came."""
        released, self._held = self._held, ""
        return released

    def _first_match(self) -> tuple[int, str] | None:
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if not found:
            return None
        _, start, stop = min(found)
        return start, stop

    def _partial_length(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
