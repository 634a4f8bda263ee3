"""Reading the kernel's small files in /proc and /sys. What cannot be read counts as empty; nothing here raises."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_LARGEST = 1 << 16


def text_of(file: Path) -> str:
    """The first 64 KiB of a plain file; empty if it cannot be read, and for a pipe or a device, which might block."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return ""
            return opened.read(_LARGEST).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def whole_number(text: str) -> int | None:
    """A whole number of at most 12 digits, else None."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else None


def is_there(path: Path) -> bool:
    """Whether a file or folder is there, as far as this user may see: `Path.exists` raises where debugfs is closed."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def children(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; none if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The entries of a folder whose names fit one of the patterns, sorted."""
    return [entry for entry in children(folder) if any(entry.match(pattern) for pattern in patterns)]
