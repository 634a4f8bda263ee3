"""Errors, counts and the list of models, and that the tables of fields hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from scripted_server import ScriptedEngine, running, until

from exo.api import HttpSettings, KeyRing
from exo.api.anthropic import fields, schema
from exo.api.anthropic.operations import ANTHROPIC_OPERATIONS
from exo.api.anthropic.routes import Anthropic
from exo.api.errors import anthropic_error, error_shape, openai_error
from exo.api.fields import Fields
from exo.inference import InferenceService, NodeMetrics
from exo.types import (
    BodyTooLarge,
    ChatRequest,
    ContextOverflow,
    DeadlineExceeded,
    ExoError,
    Message,
    ModelNotFound,
    QueueFull,
    RunFailed,
    ShuttingDown,
)

Ask = Callable[..., Awaitable[httpx2.Response]]

HELLO: dict[str, Any] = {"model": "uno", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
COUNT = {key: value for key, value in HELLO.items() if key != "max_tokens"}
COUNT_PATH = "/v1/messages/count_tokens"
VERSION = {"anthropic-version": "2023-06-01"}


def test_the_shape_of_errors_follows_the_path() -> None:
    error = QueueFull("full")
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"):
        assert error_shape(path, request_id="r1")(error) == anthropic_error(error, "r1")
    assert error_shape("/v1/messagesx") is error_shape("/v1/models") is openai_error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("x", []), "not_found_error"),
        (BodyTooLarge(5), "request_too_large"),
        (QueueFull("full"), "rate_limit_error"),
        (ShuttingDown("bye"), "overloaded_error"),
        (DeadlineExceeded("late"), "timeout_error"),
        (RunFailed("broken"), "api_error"),
        (ContextOverflow(prompt_tokens=9, context_tokens=5), "invalid_request_error"),
    ],
)
def test_types_of_errors(error: ExoError, kind: str) -> None:
    shown = anthropic_error(error, "r1")
    assert shown == {
        "type": "error",
        "error": {"type": kind, "message": error.message, "code": error.code},
        "request_id": "r1",
    }


async def test_a_client_is_told_to_go_on_without_a_thread(ask: Ask) -> None:
    details = {"error_code": "thread_unsupported_request"}
    threads: list[dict[str, Any]] = [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}]
    for thread in threads:
        response = await ask({**HELLO, "thread": thread})
        assert (response.status_code, response.json()["error"]["details"]) == (400, details)
    assert "details" not in (await ask({**HELLO, "container": "c"})).json()["error"]


async def test_refusals_of_every_layer_have_the_shape() -> None:
    right = {"x-api-key": "right"}
    asked: list[tuple[str, str, dict[str, str], int, str]] = [
        ("POST", "/v1/messages", {}, 401, "authentication_error"),
        ("POST", "/v1/messages", {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("POST", "/v1/messages", {**right, "origin": "https://evil.example"}, 403, "permission_error"),
        ("GET", "/v1/messages", right, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", right, 404, "not_found_error"),
        ("POST", "/v1/messages", right, 400, "invalid_request_error"),
    ]
    settings = HttpSettings(port=0, keys=KeyRing.from_plain(["right"]))
    async with running(settings=settings) as node, httpx2.AsyncClient(base_url=node.url) as client:
        for method, path, headers, status, kind in asked:
            response = await client.request(method, path, headers=headers)
            assert (response.status_code, response.json()["type"]) == (status, "error")
            assert response.json()["error"]["type"] == kind
        assert (await client.post("/v1/messages", headers=right, json=HELLO)).status_code == 200


async def test_a_refusal_before_the_run_keeps_its_status_streamed_or_not(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = [QueueFull("full", retry_after=7)]
    for stream in (False, True):
        response = await ask({**HELLO, "stream": stream})
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json()["error"]["code"] == "queue_full"


async def test_the_id_of_a_request_is_where_clients_look_for_it(ask: Ask, engine: ScriptedEngine) -> None:
    engine.script = ["x"]
    bodies: list[tuple[Any, str]] = [(HELLO, "/v1/messages"), ({}, "/v1/messages"), (COUNT, COUNT_PATH)]
    for body, path in bodies:
        response = await ask(body, path, headers={"x-request-id": "r1"})
        assert response.headers["request-id"] == "r1"


async def test_an_unknown_model_is_404_and_named(ask: Ask) -> None:
    for path in ("/v1/messages", COUNT_PATH):
        response = await ask({**HELLO, "model": "claude-x"}, path)
        assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")
        assert "claude-x" in response.json()["error"]["message"]


async def test_tokens_are_counted_by_the_engine(ask: Ask, engine: ScriptedEngine) -> None:
    tools = [{"name": "f", "input_schema": {}}]
    thinking = {"type": "enabled", "budget_tokens": 9000}
    response = await ask({**COUNT, "system": "be", "tools": tools, "thinking": thinking}, COUNT_PATH)
    assert response.json() == {"input_tokens": 7}
    (request,) = engine.requests
    assert (request.model, request.tools[0].name, request.think_budget) == ("one", "f", 9000)


async def test_a_count_needs_no_max_tokens_and_refuses_as_an_answer_does(ask: Ask, engine: ScriptedEngine) -> None:
    for body in (HELLO, COUNT):
        assert (await ask(body, COUNT_PATH)).status_code == 200
    assert (await ask(COUNT)).json()["error"]["message"] == "max_tokens is missing."
    engine.requests.clear()
    begun = [*COUNT["messages"], {"role": "assistant", "content": "a"}]
    refused: list[dict[str, Any]] = [{"mcp_servers": [{}]}, {"messages": begun}, {"messages": []}]
    for wrong in refused:
        assert (await ask({**COUNT, **wrong}, COUNT_PATH)).status_code == 400
    assert engine.requests == []


TOO_MUCH: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"name": "f", "input_schema": {}}]}, "functions"),
    ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "adaptive"),
]


@pytest.mark.parametrize("path", ["/v1/messages", COUNT_PATH])
@pytest.mark.parametrize(("wish", "word"), TOO_MUCH)
async def test_what_the_engine_has_not_is_refused(path: str, wish: dict[str, Any], word: str) -> None:
    async with running() as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post(path, json={**HELLO, **wish})
        assert node.engine.requests == []
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert word in response.json()["error"]["message"]


async def test_an_engine_that_cannot_count_is_named() -> None:
    class Broken(ScriptedEngine):
        async def count(self, request: Any) -> int:
            raise ZeroDivisionError

    async with running(Broken()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post(COUNT_PATH, json=COUNT)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_run_failed")
    assert "scripted" in response.json()["error"]["message"]


async def test_a_count_ends_with_its_client() -> None:
    class Slow(ScriptedEngine):
        counting = cancelled = False

        async def count(self, request: Any) -> int:
            self.counting = True
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
            return 0

    engine = Slow()
    async with running(engine) as node, httpx2.AsyncClient(base_url=node.url) as client:
        asked = asyncio.create_task(client.post(COUNT_PATH, json=COUNT))
        await until(lambda: engine.counting)
        asked.cancel()
        await until(lambda: engine.cancelled)


async def test_nothing_is_counted_while_the_node_ends(engine: ScriptedEngine) -> None:
    service = InferenceService(engine, NodeMetrics(engine.context.registry))
    await service.end(0)
    with pytest.raises(ShuttingDown):
        await service.count(ChatRequest(model="one", messages=(Message(role="user", content="hi"),)))


async def test_models_have_the_shape_that_a_client_reads(ask: Ask) -> None:
    listed = (await ask(path="/v1/models", method="GET", headers=VERSION)).json()
    one = {"type": "model", "id": "one", "display_name": "one", "created_at": "1970-01-01T00:00:00Z"}
    one["lifecycle"] = "active"
    assert listed["data"][0] == one
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "one", "two/b:1")
    assert (await ask(path="/v1/models/uno", method="GET", headers=VERSION)).json() == one
    assert (await ask(path="/v1/models/two/b:1", method="GET", headers=VERSION)).json()["id"] == "two/b:1"
    assert (await ask(path="/v1/models/three", method="GET", headers=VERSION)).status_code == 404
    assert (await ask(path="/v1/models", method="GET")).json()["object"] == "list"
    assert (await ask(path="/v1/models/uno", method="GET")).json()["object"] == "model"


async def test_a_node_without_models_lists_none(engine: ScriptedEngine, ask: Ask, monkeypatch: Any) -> None:
    async def models() -> list[Any]:
        return []

    monkeypatch.setattr(engine, "models", models)
    listed = (await ask(path="/v1/models", method="GET", headers=VERSION)).json()
    assert listed == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    ("table", "kind"), [(fields.MESSAGES, schema.MessagesRequest), (fields.COUNT_TOKENS, schema.CountTokensRequest)]
)
def test_every_field_is_in_its_table_and_no_other(table: Fields, kind: type[msgspec.Struct]) -> None:
    assert sorted(table) == sorted(field.encode_name for field in msgspec.structs.fields(kind))


def test_every_block_is_in_its_table_and_no_other() -> None:
    tags = {str(block.__struct_config__.tag) for block in schema.Block.__args__}
    assert tags == set(fields.BLOCKS)
    refused = {str(block.__struct_config__.tag) for block in schema.RefusedBlock.__args__}
    assert refused == {tag for tag, handling in fields.BLOCKS.items() if handling.kind == "refused"}
    assert all(handling.note for handling in fields.BLOCKS.values() if handling.kind == "refused")


def test_every_path_is_in_the_openapi_document(engine: ScriptedEngine) -> None:
    service = InferenceService(engine, NodeMetrics(engine.context.registry))
    routes = {route.path for route in Anthropic(service, HttpSettings()).routes()}
    assert {operation.path for operation in ANTHROPIC_OPERATIONS} == routes - {"/v1/models", "/v1/models/{model:path}"}
