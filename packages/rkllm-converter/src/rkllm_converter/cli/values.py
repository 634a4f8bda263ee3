"""Parsers of single values. Each raises argparse's error with what it expected."""

from __future__ import annotations

import argparse
import re

__all__ = ["lower", "memory_mb", "positive"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([gm])i?b?", re.ASCII | re.IGNORECASE)
_GB = 1024


def lower(text: str) -> str:
    """Names of chips and types may be written in upper case, as in Rockchip's samples."""
    return text.lower()


def memory_mb(text: str) -> float:
    """`8G` or `8192M`, in MB of 2^20 bytes."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * (_GB if found[2].lower() == "g" else 1) if found else 0
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory: say 8G or 8192M")
    return size


def positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
