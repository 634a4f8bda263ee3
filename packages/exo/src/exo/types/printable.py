"""Text that others have chosen, made harmless for a terminal, a log and a page."""

from __future__ import annotations


def escaped(text: str) -> str:
    """With what cannot be printed escaped: nothing hides or moves what stands around it, and two texts stay two."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def one_line(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
