"""What a server said went wrong, as an exception of exo.

A server of this project names a stable code; its message, status and code reach the client as they are. All others are
judged by their status, and the message names the server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from exo.types import (
    AnswerNotValid,
    BadModelfile,
    BadModelName,
    BodyTooLarge,
    CapacityError,
    ContextOverflow,
    DeadlineExceeded,
    EndlessPadding,
    EngineError,
    ExoError,
    InsufficientMemory,
    InvalidRequest,
    ModelExists,
    ModelLoadError,
    ModelNotFound,
    NotEnoughDisk,
    NotFound,
    NothingToPull,
    PullError,
    QueueFull,
    RemoteFailed,
    RemoteUnavailable,
    RequestError,
    RunFailed,
    RunTimedOut,
    StoreError,
    UnsupportedParameter,
    WorkerDied,
)

RELAYED: Mapping[str, type[ExoError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        UnsupportedParameter,
        ContextOverflow,
        ModelNotFound,
        BodyTooLarge,
        CapacityError,
        QueueFull,
        DeadlineExceeded,
        EngineError,
        RemoteFailed,
        ModelLoadError,
        InsufficientMemory,
        WorkerDied,
        RunFailed,
        AnswerNotValid,
        RunTimedOut,
        EndlessPadding,
        StoreError,
        BadModelName,
        BadModelfile,
        ModelExists,
        PullError,
        NothingToPull,
        NotEnoughDisk,
    )
}
"""The others tell about the server or the way to it, not about the request: a wrong key, a wrong path, a server that
ends, or that is set up badly. They become RemoteUnavailable or RemoteFailed by their status, and name the server."""

_NUMBERS: Mapping[type[ExoError], Mapping[str, Any]] = {
    ContextOverflow: {"prompt_tokens": 0, "context_tokens": 0},
    ModelNotFound: {"model": "", "known": []},
    BodyTooLarge: {"limit": 0},
    InsufficientMemory: {"needed": 0, "available": 0},
}
"""What these classes know beside their message. From elsewhere only the message comes, which has it in words."""

_LONGEST = 300
_LONGEST_PAGE = 1 << 14
"""Bytes of a page that are looked at: the time for its tags grows with the square."""
_TAG = re.compile(r"<(style|script|head)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """What an error body says. `prompt_tokens` and `context_tokens` are llama-server's, for a prompt too long."""

    message: str
    readable: bool = True
    code: str = ""
    status: int = 0
    param: str | None = None
    prompt_tokens: int | None = None
    context_tokens: int | None = None


def relayed(code: str, message: str, param: str | None = None, retry_after: int | None = None) -> ExoError | None:
    """The exception that a server of this project has raised, with its own words; None for a code that is not known."""
    kind = RELAYED.get(code)
    return None if kind is None else _made(kind, message, param, retry_after)


def _made(kind: type[ExoError], message: str, param: str | None, retry_after: int | None) -> ExoError:
    error = kind.__new__(kind)
    ExoError.__init__(error, message)  # the classes' own arguments only serve to write the message
    if isinstance(error, RequestError):
        error.param = param
    if isinstance(error, CapacityError):
        error.retry_after = retry_after or 1
    for name, value in _NUMBERS.get(kind, {}).items():
        setattr(error, name, value)
    return error


def error_of(host: str, path: str, status: int, content: bytes, retry_after: int | None = None) -> ExoError:
    """The exception for an error body, or for an error within a stream (`status` 500 then)."""
    said = said_in(content)
    known = relayed(said.code, said.message, said.param, retry_after)
    if known is not None:
        return known
    if said.prompt_tokens is not None and said.context_tokens is not None:
        return ContextOverflow(prompt_tokens=said.prompt_tokens, context_tokens=said.context_tokens, hint=f"at {host}")
    return _by_status(f"The server at {host}", path, said.status or status, said, retry_after)


def _by_status(server: str, path: str, status: int, said: Said, retry_after: int | None) -> ExoError:
    because = f": {said.message}" if said.message else "."
    error: ExoError = RemoteFailed(f"{server} failed with status {status}{because}")
    if status in (400, 413, 422):
        error = InvalidRequest(f"{server} refused the request{because}", param=said.param)
    elif status in (401, 403):
        error = RemoteUnavailable(
            f"{server} does not let this node in (status {status}{said.message and f', {said.message!r}'}). "
            "Put a key that it knows into EXO_REMOTE_API_KEY."
        )
    elif status == 404 and said.readable and said.code != NotFound.code:
        error = _made(ModelNotFound, f"{server} does not have what was asked for{because}", "model", None)
    elif status in (404, 405):
        error = RemoteFailed(f"{server} has no {path}. Check its address, and EXO_REMOTE_DIALECT if that is set.")
    elif status == 429:
        error = QueueFull(f"{server} takes no more requests now{because}", retry_after=retry_after or 1)
    elif status == 503:
        error = RemoteUnavailable(f"{server} cannot answer now{because}")
    return error


def said_in(content: bytes) -> Said:
    """Read an error body: OpenAI's shape, Ollama's, llama-server's, or a page of a proxy."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Said(shortened(_TAG.sub(" ", content[:_LONGEST_PAGE].decode("utf-8", "replace"))), readable=False)
    outer = body if isinstance(body, dict) else {}
    inner = outer.get("error")
    fields = inner if isinstance(inner, dict) else outer
    message = inner if isinstance(inner, str) else fields.get("message", outer.get("detail", ""))
    code = fields.get("code")
    param = fields.get("param")
    return Said(
        message=message if isinstance(message, str) else shortened(str(message)),
        readable=bool(outer),
        code=code if isinstance(code, str) else "",
        status=code if isinstance(code, int) and 400 <= code < 600 else 0,
        param=param if isinstance(param, str) else None,
        prompt_tokens=_count(fields, "n_prompt_tokens"),
        context_tokens=_count(fields, "n_ctx"),
    )


def shortened(text: str) -> str:
    """One line of at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def retry_after(value: str | None) -> int | None:
    """The header's seconds; None if there is none, or a date."""
    try:
        seconds = math.ceil(float(value or ""))
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 1), 3600)


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None
