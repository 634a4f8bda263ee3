"""How one conversion of a batch ended."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FAILED", "GOOD", "NOT_BEGUN", "STOPPED", "Outcome", "outcome_of"]

GOOD = ("done", "unchanged", "planned")
FAILED = "failed"
STOPPED = "stopped"
"""It was at work when the batch was told to end."""
NOT_BEGUN = "not begun"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One of GOOD, or another of the words above, as `status`; the rest as far as it is known.

    `file_mb` in MB of 2^20 bytes; `tokens_per_s` and `fits` are what to expect on the board. `error` is the name of
    the error's type and what it says.
    """

    name: str
    status: str
    folder: str
    seconds: float = 0.0
    file_mb: float | None = None
    tokens_per_s: float | None = None
    fits: bool | None = None
    error: tuple[str, str] | None = None
    log: str | None = None

    def as_json(self) -> dict[str, Any]:
        error = {"type": self.error[0], "message": self.error[1]} if self.error else None
        return {
            "name": self.name,
            "status": self.status,
            "folder": self.folder,
            "seconds": round(self.seconds, 3),
            "file_mb": self.file_mb,
            "tokens_per_s": self.tokens_per_s,
            "fits": self.fits,
            "error": error,
            "log": self.log,
        }


def outcome_of(
    name: str, folder: str, *, code: int, answer: str, last_words: str, seconds: float, log: str | None
) -> Outcome:
    """From the exit `code` of `rkllm-convert model --json` (negative: a signal), and the `answer` on its stdout.

    `last_words` is what it said last on stderr.
    """
    found = _parsed(answer)
    if found is None or (code == 0) != (found["status"] in GOOD):
        error = _without_answer(code, last_words)
        return Outcome(name, FAILED, folder, seconds=seconds, error=error, log=log)
    fits = found.get("fits")
    return Outcome(
        name,
        found["status"],
        folder,
        seconds=seconds,
        file_mb=_number(found.get("file_mb")),
        tokens_per_s=_number(found.get("tokens_per_s")),
        fits=fits if isinstance(fits, bool) else None,
        error=None if found["status"] in GOOD else _error(found.get("error")),
        log=log,
    )


def _parsed(answer: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("status") in (*GOOD, FAILED) else None


def _error(found: Any) -> tuple[str, str]:
    if isinstance(found, dict) and isinstance(found.get("message"), str):
        return str(found.get("type") or "Error"), found["message"]
    return "Error", "It failed without saying why."


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return float(found)


def _without_answer(code: int, last_words: str) -> tuple[str, str]:
    said = f" The last that it said: {last_words}" if last_words else ""
    if code >= 0:
        return "NoAnswer", f"The conversion ended with exit code {code} and without a result.{said}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = (
        " Most likely memory ran out: see the memory table of docs/CONVERSION.md." if code == -signal.SIGKILL else ""
    )
    return "Died", f"The conversion was ended by {name}.{memory}{said}"
