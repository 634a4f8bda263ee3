"""Sizes and durations for people; MB and GB are 2^20 and 2^30 bytes."""

from __future__ import annotations

import re

__all__ = ["GB_IN_MB", "MB", "duration", "gb", "mb", "parsed_mb"]

MB = 1 << 20
"""Bytes."""

GB_IN_MB = 1024

_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([gm])i?b?", re.ASCII | re.IGNORECASE)


def gb(size_mb: float) -> str:
    return f"{size_mb / GB_IN_MB:.1f} GB"


def mb(size_mb: float) -> str:
    """With a decimal where it matters."""
    return f"{size_mb:,.1f} MB" if size_mb < 10 else f"{size_mb:,.0f} MB"


def duration(seconds: float) -> str:
    """`0.4 s`, `41 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def parsed_mb(text: str) -> float | None:
    """Of `8G`, `8192M` or `8 GiB`; None for what is no size, or none above 0."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * (GB_IN_MB if found[2].lower() == "g" else 1) if found else 0.0
    return size or None
