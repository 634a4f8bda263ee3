"""Times as Ollama writes them."""

from __future__ import annotations

import time

UNKNOWN = "0001-01-01T00:00:00Z"
"""What Ollama shows for a time that it does not know."""
_NANOSECONDS = 1_000_000_000


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, with nine digits behind the second, of nanoseconds since 1970."""
    seconds, fraction = divmod(nanoseconds, _NANOSECONDS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def now() -> str:
    return timestamp(time.time_ns())


def nanoseconds(seconds: float) -> int:
    return round(seconds * _NANOSECONDS)
