"""How one conversion of a batch ended."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rkllm_converter.children import ending
from rkllm_converter.request import STAND_IN

__all__ = ["FAILED", "GOOD", "NOT_BEGUN", "STOPPED", "Outcome", "outcome_of"]

GOOD = ("done", "unchanged", "planned")
FAILED = "failed"
STOPPED = "stopped"
"""It was at work when the batch was told to end."""
NOT_BEGUN = "not begun"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One of GOOD, or another of the words above, as `status`; the rest as far as it is known.

    - `file_mb`, `memory_mb`: in MB of 2^20 bytes
    - `tokens_per_s`, `memory_mb`, `fits`: what to expect on the board; `margin_fits`: `fits` with the margin that
      rkllama keeps
    - `error`: the name of the error's type, and what it says; `notes`: what else is to be known
    """

    name: str
    status: str
    folder: str
    seconds: float = 0.0
    file_mb: float | None = None
    tokens_per_s: float | None = None
    memory_mb: float | None = None
    fits: bool | None = None
    margin_fits: bool | None = None
    error: tuple[str, str] | None = None
    log: str | None = None
    notes: tuple[str, ...] = ()
    model: str = ""

    def as_json(self) -> dict[str, Any]:
        error = {"type": self.error[0], "message": self.error[1]} if self.error else None
        return {
            "name": self.name,
            "model": self.model,
            "status": self.status,
            "folder": self.folder,
            "seconds": round(self.seconds, 3),
            "file_mb": self.file_mb,
            "tokens_per_s": self.tokens_per_s,
            "memory_mb": self.memory_mb,
            "fits": self.fits,
            "margin_fits": self.margin_fits,
            "error": error,
            "log": self.log,
            "notes": [*self.notes],
        }


def outcome_of(
    name: str, folder: str, *, model: str, code: int, answer: str, last_words: str, seconds: float, log: str | None
) -> Outcome:
    """From the exit `code` of `rkllm-convert model --json` (negative: a signal), and the `answer` on its stdout.

    `last_words` is what it said last on stderr.
    """
    found = _parsed(answer)
    if found is None or (code == 0) != (found["status"] in GOOD):
        error = _without_answer(code, last_words)
        return Outcome(name, FAILED, folder, seconds=seconds, error=error, log=log, model=model)
    report = _mapping(found.get("preflight"))
    board = _mapping(report.get("board"))
    return Outcome(
        name,
        found["status"],
        folder,
        seconds=seconds,
        file_mb=_number(found.get("file_mb")),
        tokens_per_s=_number(found.get("tokens_per_s")),
        memory_mb=_number(board.get("memory_mb")),
        fits=_truth(found.get("fits")),
        margin_fits=_truth(board.get("margin_fits")),
        error=None if found["status"] in GOOD else _error(found.get("error")),
        log=log,
        notes=tuple(_notes(found, report)),
        model=model,
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


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _notes(found: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    yield from _texts(report.get("notes"))
    yield from _ignored(report.get("problems"))
    yield from _texts(found.get("notes"))
    if found.get("is_stand_in") is True and found["status"] == "done":
        yield STAND_IN


def _texts(found: Any) -> Iterator[str]:
    yield from (one for one in found if isinstance(one, str) and one.strip()) if isinstance(found, list) else ()


def _ignored(problems: Any) -> Iterator[str]:
    """Of a conversion that went on in spite of them."""
    yield from (f"Ignored: {text}" for text in _texts([*_mapping(problems).values()]))


def _truth(found: Any) -> bool | None:
    return found if isinstance(found, bool) else None


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        return None
    return float(found)


def _without_answer(code: int, last_words: str) -> tuple[str, str]:
    said = f" The last that it said: {last_words}" if last_words else ""
    return "Died" if code < 0 else "NoAnswer", f"The conversion {ending(code)}{said}"
