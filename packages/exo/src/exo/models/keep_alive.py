"""How long an idle model stays loaded, as Ollama writes it."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_keep_alive(text: str) -> float:
    """Seconds that an idle model stays loaded; infinite for anything negative.

    `5m`, `1h30m`, `300` (seconds), `0` (unload at once), `-1` (for ever). Raises ValueError.
    """
    expected = "expected a time such as 5m, 1h30m, 300 (seconds), 0 (unload at once) or -1 (for ever)"
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    try:
        seconds = float(body) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", body, re.ASCII) else _duration(body)
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not math.isfinite(seconds):
        raise ValueError(expected)
    return math.inf if sign * seconds < 0 else seconds


def _duration(text: str) -> float:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError
    return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
