from __future__ import annotations

from typing import Any

import httpx2
from ollama_engine import OllamaEngine
from scripted_server import running
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exo.api import HttpSettings, KeyRing, create_app
from exo.api.endpoint import Endpoint
from exo.api.errors import error_shape, openai_error, plain_error
from exo.api.exchange import send_json
from exo.api.extension import Extension
from exo.inference import InferenceService, NodeMetrics
from exo.types import ModelNotFound, QueueFull


def test_the_shape_follows_the_path() -> None:
    older = frozenset({"/load_model"})
    assert [error_shape(path, older) for path in ("/api/tags", "/load_model")] == [plain_error] * 2
    assert [error_shape(path, older) for path in ("/v1/models", "/api", "/apis/x", "/load_model/x", "/")] == [
        openai_error
    ] * 5


def test_a_plain_error_has_a_sentence_and_a_code() -> None:
    assert plain_error(QueueFull("full")) == {"error": "full", "code": "queue_full"}
    assert plain_error(ModelNotFound("x", []))["error"].startswith("model 'x' not found")


async def test_refusals_of_every_layer_have_the_shape_of_their_path() -> None:
    keys = KeyRing.from_plain(["right"])
    right = {"authorization": "Bearer right"}
    asked: list[tuple[str, str, dict[str, str], int, str]] = [
        ("GET", "/api/tags", {}, 401, "invalid_api_key"),
        ("GET", "/api/tags", {**right, "origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ("GET", "/api/tags", {**right, "host": "evil.example"}, 403, "host_not_allowed"),
        ("GET", "/api/nowhere", right, 404, "not_found"),
        ("GET", "/api/chat", right, 405, "method_not_allowed"),
        ("POST", "/api/tags", right, 405, "method_not_allowed"),
        ("POST", "/api/chat", right, 400, "invalid_request"),
    ]
    async with running(OllamaEngine(), HttpSettings(port=0, keys=keys, max_body=5000)) as node:
        async with httpx2.AsyncClient(base_url=node.url) as client:
            for method, path, headers, status, code in asked:
                response = await client.request(method, path, headers=headers)
                assert (response.status_code, response.json()["code"]) == (status, code)
                assert isinstance(response.json()["error"], str)
            other = await client.get("/v1/nowhere", headers=right)
            large = await client.post("/api/chat", headers=right, content=b"x" * 6000)
    assert other.json()["error"]["code"] == "not_found"
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


async def test_an_unexpected_failure_has_the_shape_too() -> None:
    class Broken(OllamaEngine):
        async def describe(self, model: str) -> Any:
            raise ZeroDivisionError

    async with running(Broken()) as node, httpx2.AsyncClient(base_url=node.url) as client:
        response = await client.post("/api/show", json={"model": "one"}, headers={"x-request-id": "abc-1"})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "abc-1" in response.json()["error"]


def app_with(seen: list[tuple[str, int]]) -> ASGIApp:
    engine = OllamaEngine()

    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, ["older"])

    async def load(scope: Scope, receive: Receive, send: Send) -> None:
        raise ModelNotFound("x", ["one"])

    return create_app(
        InferenceService(engine, NodeMetrics(engine.context.registry)),
        extension=Extension(
            routes=[
                Route("/models", Endpoint(models), methods=["GET"]),
                Route("/load_model", Endpoint(load), methods=["POST"]),
            ],
            plain_error_paths=frozenset({"/load_model"}),
            on_response=lambda path, status: seen.append((path, status)),
        ),
    )


async def test_further_routes_come_first_and_may_have_plain_errors() -> None:
    seen: list[tuple[str, int]] = []
    transport = httpx2.ASGITransport(app=app_with(seen))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        replaced = await client.get("/models")
        kept = await client.get("/v1/models")
        missing = await client.post("/load_model")
        wrong = await client.get("/load_model")
        chat = await client.post("/api/chat", json={"model": "one", "messages": [{"role": "user", "content": "a"}]})
    assert replaced.json() == ["older"]
    assert [model["id"] for model in kept.json()["data"]] == ["one", "two/b:1"]
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
    assert missing.json()["error"].startswith("model 'x' not found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert chat.text.endswith("\n")
    assert seen == [
        ("/models", 200),
        ("/v1/models", 200),
        ("/load_model", 404),
        ("/load_model", 405),
        ("/api/chat", 200),
    ]
