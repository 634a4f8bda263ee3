"""Text that others have chosen, made harmless for a terminal and a log."""

from __future__ import annotations


def plain(text: str, longest: int = 200) -> str:
    """One printable line of at most so many characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
