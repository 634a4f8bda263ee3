from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from exo.api.errors import openai_error, status_of
from exo.inference.remote.errors import RELAYED, error_of, relayed, retry_after, said_in
from exo.types import (
    AdminRequired,
    AuthenticationFailed,
    BodyTimeout,
    CapacityError,
    ConfigurationError,
    ContextOverflow,
    DiscoveryError,
    Draining,
    EngineUnavailable,
    ExoError,
    ForbiddenHost,
    ForbiddenOrigin,
    InsufficientMemory,
    InvalidRequest,
    KeyLimitReached,
    MethodNotAllowed,
    ModelNotFound,
    NodeFailed,
    NotFound,
    OperatorError,
    PluginError,
    PreviousResponseNotFound,
    ProxyRefused,
    ProxyUnreachable,
    QueueFull,
    RemoteFailed,
    RemoteUnavailable,
    RequestError,
    RunFailed,
    ShuttingDown,
)

ABOUT_THE_WAY = {
    EngineUnavailable,
    RemoteUnavailable,
    ShuttingDown,
    Draining,
    ExoError,
    RequestError,
    NotFound,
    PreviousResponseNotFound,
    MethodNotAllowed,
    AuthenticationFailed,
    AdminRequired,
    KeyLimitReached,
    ForbiddenOrigin,
    ForbiddenHost,
    BodyTimeout,
    OperatorError,
    ConfigurationError,
    DiscoveryError,
    NodeFailed,
    ProxyUnreachable,
    ProxyRefused,
    PluginError,
}
HOST = "board:8080"


def kinds(root: type[ExoError] = ExoError) -> Iterator[type[ExoError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == "exo.types.errors":
            yield from kinds(child)


def made(status: int, body: object, path: str = "/api/chat", wait: int | None = None) -> ExoError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_of(HOST, path, status, content, wait)


def test_every_exception_is_relayed_or_about_the_way_to_the_server() -> None:
    assert {kind for kind in kinds() if kind not in RELAYED.values()} == ABOUT_THE_WAY


@pytest.mark.parametrize("kind", RELAYED.values())
def test_a_relayed_error_keeps_status_code_words_and_fields(kind: type[ExoError]) -> None:
    error = relayed(kind.code, "its own words", "field", 7)
    assert type(error) is kind
    assert (error.message, str(error), error.code) == ("its own words", "its own words", kind.code)
    assert status_of(error) >= 400
    assert openai_error(error)["error"]["message"] == "its own words"
    if isinstance(error, RequestError):
        assert error.param == "field"
    if isinstance(error, CapacityError):
        assert error.retry_after == 7


def test_what_a_class_knows_is_there_after_relaying() -> None:
    overflow, memory = relayed(ContextOverflow.code, "x"), relayed(InsufficientMemory.code, "x")
    missing = relayed(ModelNotFound.code, "x")
    assert isinstance(overflow, ContextOverflow)
    assert isinstance(memory, InsufficientMemory)
    assert isinstance(missing, ModelNotFound)
    assert (overflow.prompt_tokens, memory.needed, missing.known) == (0, 0, [])


def test_an_unknown_code_is_not_relayed() -> None:
    assert relayed("context_window_on_fire", "x") is None
    assert relayed("", "x") is None


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "type": "t", "param": "messages", "code": "context_length_exceeded"}},
        {"error": "too long", "code": "context_length_exceeded"},
    ],
    ids=["openai", "ollama"],
)
def test_both_shapes_of_this_project(body: dict[str, Any]) -> None:
    error = made(400, body)
    assert type(error) is ContextOverflow
    assert error.message == "too long"


def test_the_reason_to_wait_comes_along() -> None:
    error = made(429, {"error": {"message": "full", "code": "queue_full"}}, wait=12)
    assert isinstance(error, QueueFull)
    assert error.retry_after == 12


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (401, RemoteUnavailable),
        (403, RemoteUnavailable),
        (404, ModelNotFound),
        (405, RemoteFailed),
        (429, QueueFull),
        (500, RemoteFailed),
        (502, RemoteFailed),
        (503, RemoteUnavailable),
        (301, RemoteFailed),
    ],
)
@pytest.mark.parametrize(
    "body",
    [{"error": "odd words"}, {"error": {"message": "odd words", "code": None}}, {"detail": "odd words"}],
    ids=["text", "object", "detail"],
)
def test_without_a_known_code_the_status_decides(status: int, kind: type[ExoError], body: dict[str, Any]) -> None:
    error = made(status, body)
    assert type(error) is kind
    assert HOST in error.message
    assert "odd words" in error.message or status == 405


@pytest.mark.parametrize("status", [401, 403])
def test_a_closed_door_names_the_key(status: int) -> None:
    error = made(status, {"error": {"message": "no", "code": "invalid_api_key"}})
    assert type(error) is RemoteUnavailable
    assert "EXO_REMOTE_API_KEY" in error.message


@pytest.mark.parametrize("body", [b"<html><h1>404 Not Found</h1></html>", {"error": "x", "code": "not_found"}])
def test_a_path_that_is_not_there_is_no_missing_model(body: object) -> None:
    error = made(404, body)
    assert type(error) is RemoteFailed
    assert "/api/chat" in error.message
    assert "address" in error.message


def test_the_page_of_a_proxy_is_shortened() -> None:
    page = b"<html><head><title>502</title></head>\r\n<body><h1>502 Bad Gateway</h1>" + b"x " * 5000 + b"</body></html>"
    error = made(502, page)
    assert "502 Bad Gateway" in error.message
    assert "<" not in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"null", b'"x"', b"7", b"[" * 5000, b'{"error": null}'])
def test_any_body_makes_an_error(body: bytes) -> None:
    assert isinstance(made(500, body), RemoteFailed)


def test_the_numbers_of_llama_server() -> None:
    body = {"error": {"code": 400, "message": "x", "n_prompt_tokens": 9, "n_ctx": 8}}
    error = made(500, body)
    assert isinstance(error, ContextOverflow)
    assert (error.prompt_tokens, error.context_tokens) == (9, 8)


def test_a_number_as_code_is_the_status_of_an_error_within_a_stream() -> None:
    assert type(made(500, {"error": {"code": 400, "message": "x"}})) is InvalidRequest
    assert type(made(500, {"error": {"code": 7, "message": "x"}})) is RemoteFailed


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), ("", None), ("7", 7), ("0", 1), ("1.2", 2), ("1e9", 3600), ("Wed, 21", None)]
)
def test_retry_after(value: str | None, seconds: int | None) -> None:
    assert retry_after(value) == seconds


def test_infinite_waiting_is_none() -> None:
    assert retry_after("inf") is None
    assert retry_after("nan") is None


def test_fields_of_other_types_are_left_out() -> None:
    found = said_in(b'{"error": {"message": ["a"], "code": [], "param": 7, "n_ctx": "x"}}')
    assert (found.code, found.param, found.context_tokens) == ("", None, None)
    assert "a" in found.message


def test_relayed_run_failures_stay_what_they_are() -> None:
    assert type(made(500, {"error": "boom", "code": "engine_run_failed"})) is RunFailed
