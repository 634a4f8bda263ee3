"""Exceptions to HTTP: status by type, body in the dialect's shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from exo.types import (
    AdminRequired,
    AuthenticationFailed,
    BadModelfile,
    BadModelName,
    BodyTimeout,
    BodyTooLarge,
    CapacityError,
    DeadlineExceeded,
    Draining,
    EngineError,
    EngineUnavailable,
    ExoError,
    ForbiddenHost,
    ForbiddenOrigin,
    KeyLimitReached,
    MethodNotAllowed,
    ModelExists,
    ModelLoadError,
    ModelNotFound,
    NotEnoughDisk,
    NotFound,
    NothingToPull,
    OperatorError,
    PullError,
    QueueFull,
    RemoteFailed,
    RequestError,
    RunTimedOut,
    ShuttingDown,
    UnsupportedParameter,
    WorkerDied,
)

STATUS: Mapping[type[ExoError], int] = {
    RequestError: 400,
    ModelNotFound: 404,
    NotFound: 404,
    MethodNotAllowed: 405,
    AuthenticationFailed: 401,
    AdminRequired: 403,
    ForbiddenOrigin: 403,
    ForbiddenHost: 403,
    BodyTooLarge: 413,
    BodyTimeout: 408,
    CapacityError: 503,
    QueueFull: 429,
    KeyLimitReached: 429,
    DeadlineExceeded: 504,
    ShuttingDown: 503,
    Draining: 503,
    EngineError: 500,
    EngineUnavailable: 503,
    ModelLoadError: 503,
    RemoteFailed: 502,
    WorkerDied: 502,
    RunTimedOut: 504,
    OperatorError: 500,
    BadModelName: 400,
    BadModelfile: 400,
    ModelExists: 409,
    PullError: 502,
    NothingToPull: 404,
    NotEnoughDisk: 507,
    ExoError: 500,
}
CLIENT_GONE = 499
ErrorShape = Callable[[ExoError], dict[str, Any]]
"""The JSON body of an error, as a dialect has it."""
_OLLAMA = "/api/"
_ANTHROPIC = "/v1/messages"
_OPENAI_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Mapping[int, str] = {
    **_OPENAI_TYPES,
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


def status_of(error: ExoError) -> int:
    """The HTTP status of an error: that of its class, or of the nearest class above."""
    return next(STATUS[parent] for parent in type(error).__mro__ if parent in STATUS)


def headers_of(error: ExoError) -> list[tuple[bytes, bytes]]:
    """Headers that belong to an error."""
    if isinstance(error, CapacityError):
        return [(b"retry-after", str(error.retry_after).encode())]
    if isinstance(error, AuthenticationFailed):
        return [(b"www-authenticate", b"Bearer")]
    return []


def openai_error(error: ExoError) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    status = status_of(error)
    fallback = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(status, fallback),
            "param": error.param if isinstance(error, RequestError) else None,
            "code": error.code,
        }
    }


def plain_error(error: ExoError) -> dict[str, Any]:
    """The error in Ollama's shape, which older servers for these boards share: a sentence, our stable code, the field.

    Clients look for Ollama's words about a model that is not there. What another server has said of one stays as it is.
    """
    message = error.message
    if isinstance(error, ModelNotFound) and error.model:
        known = f"it has {', '.join(error.known)}" if error.known else "it has none"
        message = f"model '{error.model}' not found on this node: {known}. Name one of these, or bring it with a pull."
    body = {"error": message, "code": error.code}
    return body | {"param": error.param} if isinstance(error, RequestError) and error.param else body


def anthropic_error(error: ExoError, request_id: str | None = None) -> dict[str, Any]:
    """The error in Anthropic's shape, with our stable code besides.

    The details of a refused `thread` let Anthropic's clients go on by themselves: they send the whole conversation.
    """
    status = status_of(error)
    fallback = "invalid_request_error" if status < 500 else "api_error"
    detail: dict[str, Any] = {
        "type": _ANTHROPIC_TYPES.get(status, fallback),
        "message": error.message,
        "code": error.code,
    }
    if isinstance(error, UnsupportedParameter) and error.param == "thread":
        detail["details"] = {"error_code": "thread_unsupported_request"}
    return {"type": "error", "error": detail, "request_id": request_id}


def error_shape(path: str, plain_paths: frozenset[str] = frozenset(), *, request_id: str | None = None) -> ErrorShape:
    """Ollama's shape below /api/ and for `plain_paths`, Anthropic's from /v1/messages on, OpenAI's everywhere else."""
    if path.startswith(_OLLAMA) or path in plain_paths:
        return plain_error
    if path == _ANTHROPIC or path.startswith(f"{_ANTHROPIC}/"):
        return functools.partial(anthropic_error, request_id=request_id)
    return openai_error
