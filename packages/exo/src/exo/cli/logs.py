"""Log lines: text for people, JSON for machines, to stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

_PLAIN = re.compile(r"[^\s\"=\\]+")
_QUIET = {
    "httpx2": "WARNING",
    "httpcore2": "WARNING",
    "asyncio": "WARNING",
    "uvicorn": "CRITICAL",
    "zeroconf": "CRITICAL",
}
"""What uvicorn would log, exo.api has logged itself, with the request's id; and strangers could fill zeroconf's log."""


class CurrentStderr(logging.Handler):
    """Writes to what sys.stderr is at that moment: the status line takes it over while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as in logging itself: a log line that cannot be written must not stop the work
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL logger: message name=value …`; values with blanks or control characters are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {_one_line(record.getMessage())}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(_fields(record))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(level: str, *, as_json: bool) -> None:
    """Send all logs of this process to stderr; those of libraries only from warnings on."""
    handler = CurrentStderr()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _shown(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.isprintable():
        return value
    return json.dumps(value)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]
