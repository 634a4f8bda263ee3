"""The settings of the engine remote, from environment variables. docs/SETTINGS.md lists the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from exo.types import ConfigurationError, host_and_port

Dialect = Literal["ollama", "openai"]
Speech = Literal["auto", "ollama", "openai"]

TIMEOUT = 300.0
CONNECT_TIMEOUT = 5.0
_SHAPE = "http://HOST[:PORT] or https://HOST[:PORT], with a path in front of the server's own if it has one"


@dataclass(frozen=True)
class RemoteSettings:
    """Where the server is and how to talk to it. Times are in seconds; `url` has no slash at its end.

    `timeout` is the longest pause between two pieces of an answer, and before the first one.
    """

    url: str
    dialect: Speech = "auto"
    api_key: str = field(default="", repr=False)
    slots: int = 4
    timeout: float = TIMEOUT
    connect_timeout: float = CONNECT_TIMEOUT

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, url: str | None = None) -> RemoteSettings:
        """Read them all; `url` stands in for EXO_REMOTE_URL. Raises ConfigurationError for what makes no sense."""
        return cls(
            url=checked_url(env.get("EXO_REMOTE_URL", "") if url is None else url),
            dialect=_dialect(env.get("EXO_REMOTE_DIALECT", "")),
            api_key=_api_key(env.get("EXO_REMOTE_API_KEY", "")),
            slots=_slots(env.get("EXO_REMOTE_SLOTS", "")),
            timeout=_seconds(env, "EXO_REMOTE_TIMEOUT", TIMEOUT),
            connect_timeout=_seconds(env, "EXO_REMOTE_CONNECT_TIMEOUT", CONNECT_TIMEOUT),
        )


def checked_url(text: str) -> str:
    """The URL without what the dialects add to it themselves. Raises ConfigurationError."""
    text = text.strip()
    if not text:
        raise ConfigurationError(f"EXO_REMOTE_URL is not set. Set it to the server's address: {_SHAPE}.")
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not text.isprintable() or " " in text or "?" in text or "#" in text:
        raise ConfigurationError(f"EXO_REMOTE_URL has to be {_SHAPE}, not {text!r}.")
    if "@" in parts.netloc:
        raise ConfigurationError(
            "EXO_REMOTE_URL must not hold a password. Put the server's key into EXO_REMOTE_API_KEY."
        )
    return text.rstrip("/").removesuffix("/v1").rstrip("/")  # clients of OpenAI write /v1 into the address


def host_of(url: str) -> str:
    """Host and port as messages name the server."""
    parts = urlsplit(url)
    return host_and_port(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _dialect(text: str) -> Speech:
    wanted = text.strip().lower() or "auto"
    known: tuple[Speech, ...] = get_args(Speech)
    for name in known:
        if name == wanted:
            return name
    raise ConfigurationError(f"EXO_REMOTE_DIALECT has to be one of {', '.join(known)}, not {text!r}.")


def _api_key(text: str) -> str:
    key = text.strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError("EXO_REMOTE_API_KEY holds characters that no HTTP header can carry.")
    return key


def _slots(text: str) -> int:
    if not text.strip():
        return 4
    try:
        slots = int(text)
    except ValueError:
        slots = 0
    if not 1 <= slots <= 1024:
        raise ConfigurationError(f"EXO_REMOTE_SLOTS has to be a whole number from 1 to 1024, not {text!r}.")
    return slots


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.01 <= seconds <= 86_400:
        raise ConfigurationError(f"{name} has to be a number of seconds from 0.01 to 86400, not {text!r}.")
    return seconds
