"""What the OpenAPI document says of refusals, streams and parameters."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai_engine import OpenAIEngine

from exo.api import HttpSettings
from exo.api.anthropic.routes import Anthropic
from exo.api.errors import error_shape
from exo.api.extension import Extension
from exo.api.guard import OPEN_PATHS
from exo.api.ollama.routes import Ollama
from exo.api.openai.routes import OpenAI
from exo.api.openapi import document, error_type
from exo.api.operation import Operation
from exo.api.responses.routes import Responses
from exo.inference import InferenceService, NodeMetrics
from exo.types import AuthenticationFailed, InvalidRequest, UnsupportedParameter

DOCUMENT = document()
OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    (path, operation) for path, methods in DOCUMENT["paths"].items() for operation in methods.values()
]
ALIASES = {"/chat/completions", "/models"}


def json_of(operation: dict[str, Any], status: str) -> Any:
    return operation["responses"][status]["content"]["application/json"]["schema"]


@pytest.mark.parametrize(("path", "operation"), OPERATIONS)
def test_every_operation_tells_of_the_refusals_that_all_have(path: str, operation: dict[str, Any]) -> None:
    assert {"400", "403", "431", "500"} <= set(operation["responses"])
    assert ("401" in operation["responses"]) == (path not in OPEN_PATHS) == ("security" not in operation)
    assert ({"408", "413"} <= set(operation["responses"])) == ("requestBody" in operation)
    reference = {"$ref": f"#/components/schemas/{error_type(path).__name__}"}
    assert json_of(operation, "403") == json_of(operation, "500") == reference


@pytest.mark.parametrize("path", DOCUMENT["paths"])
@pytest.mark.parametrize("error", [AuthenticationFailed(), InvalidRequest("x", param="a"), UnsupportedParameter("x")])
def test_the_type_of_an_error_is_what_is_sent(path: str, error: Exception) -> None:
    shape: Any = error_shape(path, request_id="abc")
    made = shape(error)
    assert msgspec.to_builtins(msgspec.convert(made, error_type(path))) == made


def test_every_route_of_a_dialect_is_told() -> None:
    engine = OpenAIEngine()
    service, settings = InferenceService(engine, NodeMetrics(engine.context.registry)), HttpSettings()
    dialects = (
        OpenAI(service, settings),
        Responses(service, settings),
        Anthropic(service, settings),
        Ollama(service, settings),
    )
    routes = [route for dialect in dialects for route in dialect.routes()]
    asked = {(method, route.path.replace(":path", "")) for route in routes for method in route.methods or ()}
    told = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert {(method, path) for method, path in asked if path not in ALIASES} <= told | {
        ("HEAD", path) for method, path in told if method == "GET"
    }


def test_a_stream_tells_its_pieces_and_how_it_fails() -> None:
    content = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    data = content["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
    assert data[0] == {"const": "[DONE]"}
    chunk, error = data[1]["contentSchema"]["anyOf"]
    assert chunk["$ref"].endswith("/ChatCompletionChunk")
    assert error["$ref"].endswith("/ErrorBody")
    lines = DOCUMENT["paths"]["/api/chat"]["post"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
    assert [piece["$ref"].rpartition("/")[2] for piece in lines["anyOf"]] == ["OllamaChatAnswer", "PlainError"]


def test_the_fields_of_a_query_are_parameters() -> None:
    parameters = DOCUMENT["paths"]["/v1/responses/{id}/input_items"]["get"]["parameters"]
    assert [(one["in"], one["name"]) for one in parameters] == [
        ("path", "id"),
        ("query", "limit"),
        ("query", "order"),
        ("query", "after"),
    ]
    assert parameters[1]["schema"]["maximum"] == 100


def test_an_extension_takes_the_place_of_an_operation_and_its_errors_are_plain() -> None:
    mine = Operation("get", "/metrics", "Mine.", {200: "text/html"})
    made = document(Extension(title="mine", operations=(mine,), plain_error_paths=frozenset({"/metrics"})))
    assert made["info"]["title"] == "mine"
    told = made["paths"]["/metrics"]["get"]
    assert (told["summary"], set(told["responses"]["200"]["content"])) == ("Mine.", {"text/html"})
    assert json_of(told, "401") == {"$ref": "#/components/schemas/PlainError"}
