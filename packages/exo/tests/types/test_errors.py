from __future__ import annotations

import inspect

import pytest

from exo.types import (
    AdminRequired,
    AuthenticationFailed,
    BodyTimeout,
    BodyTooLarge,
    CapacityError,
    ContextOverflow,
    EngineError,
    ExoError,
    InvalidRequest,
    ModelNotFound,
    OperatorError,
    RequestError,
    errors,
)


def classes() -> list[type[ExoError]]:
    members = inspect.getmembers(errors, inspect.isclass)
    return [found for _, found in members if issubclass(found, ExoError)]


def drawn_tree() -> dict[str, str]:
    """Class to parent, as drawn at the top of the file."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        shape, mark, rest = line.rpartition("── ")
        if not mark and line != "ExoError":
            continue
        depth = (len(shape) + 3) // 4 if mark else 0
        name = rest.split()[0]
        path = [*path[:depth], name]
        if depth:
            parents[name] = path[depth - 1]
    return parents


def test_the_tree_at_the_top_of_the_file_is_the_real_one() -> None:
    real = {found.__name__: found.__bases__[0].__name__ for found in classes() if found is not ExoError}
    assert drawn_tree() == real


def test_every_class_but_the_branches_has_a_code_of_its_own() -> None:
    branches = {ExoError, RequestError, CapacityError, EngineError, OperatorError}
    codes = [found.code for found in classes() if found not in branches]
    assert len(codes) == len(set(codes))


def test_codes_are_pinned() -> None:
    assert sorted({found.code for found in classes()}) == [
        "admin_required",
        "answer_not_valid",
        "bad_model_name",
        "bad_modelfile",
        "body_timeout",
        "body_too_large",
        "configuration_error",
        "context_length_exceeded",
        "deadline_exceeded",
        "discovery_failed",
        "draining",
        "engine_endless_padding",
        "engine_error",
        "engine_run_failed",
        "engine_run_timed_out",
        "engine_unavailable",
        "engine_worker_died",
        "host_not_allowed",
        "insufficient_disk",
        "insufficient_memory",
        "internal_error",
        "invalid_api_key",
        "invalid_request",
        "key_limit",
        "method_not_allowed",
        "model_exists",
        "model_load_failed",
        "model_not_found",
        "node_failed",
        "not_found",
        "nothing_to_pull",
        "operator_error",
        "origin_not_allowed",
        "overloaded",
        "plugin_error",
        "previous_response_not_found",
        "proxy_refused",
        "proxy_unreachable",
        "pull_failed",
        "queue_full",
        "remote_failed",
        "remote_unavailable",
        "shutting_down",
        "store_error",
        "unsupported_parameter",
    ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ContextOverflow(prompt_tokens=5000, context_tokens=4096), ["5000", "4096"]),
        (ModelNotFound("gpt-4", ["a", "b"]), ["'gpt-4'", "a, b"]),
        (ModelNotFound("gpt-4", []), ["not found", "pull"]),
        (BodyTooLarge(1024), ["1024", "EXO_MAX_BODY"]),
        (BodyTimeout(2.5), ["2.5 seconds"]),
        (AuthenticationFailed(), ["Authorization: Bearer"]),
        (AdminRequired("laptop"), ["'laptop'", "scope=admin"]),
    ],
)
def test_messages_name_what_is_at_fault(error: ExoError, words: list[str]) -> None:
    assert str(error) == error.message
    assert [word for word in words if word not in error.message] == []


def test_request_errors_name_the_field() -> None:
    assert InvalidRequest("no", param="messages[0].content").param == "messages[0].content"
    assert InvalidRequest("no").param is None
    assert ContextOverflow(prompt_tokens=2, context_tokens=1).param == "messages"
    assert ModelNotFound("x", []).param == "model"


def test_capacity_errors_say_when_to_come_back() -> None:
    assert CapacityError("later").retry_after == 1
    assert CapacityError("later", retry_after=7).retry_after == 7
