"""Text that others have chosen, made harmless for a terminal and a log."""

from __future__ import annotations

from exo.types.printable import one_line


def plain(text: str, longest: int = 200) -> str:
    """One printable line of at most so many characters."""
    line = one_line(text[: 4 * longest])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
