"""What keys of each scope may do."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from api_keys import bearer, ring_of
from ollama_engine import OllamaEngine
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo.api import HttpSettings, create_app
from exo.api.endpoint import Endpoint
from exo.api.exchange import send_json
from exo.api.extension import Extension
from exo.api.ollama.library import OllamaLibrary
from exo.inference import InferenceService, NodeMetrics
from exo.inference.caller import Caller

SETTINGS = HttpSettings(port=0, keys=ring_of(Caller("user", admin=False), Caller("boss")))
MESSAGES = [{"role": "user", "content": "hi"}]


class Node:
    """A node with a key of each scope, `user` and `boss`, and paths of an extension: `/extra/…` takes an admin."""

    def __init__(self, settings: HttpSettings = SETTINGS) -> None:
        self.engine = OllamaEngine()
        self.service = InferenceService(self.engine, NodeMetrics(self.engine.context.registry))
        extra = Extension(
            routes=[Route("/extra/{name}", Endpoint(self.extra)), Route("/extras", Endpoint(self.extra))],
            admin_paths=frozenset({"/extra"}),
        )
        self._app = create_app(self.service, settings, extension=extra)

    async def extra(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {})

    async def ask(self, key: str, method: str, path: str, body: Any = None) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=bearer(key)) as client:
            response: httpx2.Response = await client.request(method, path, json=body)
            return response


def library_routes() -> list[tuple[str, str]]:
    """Method and path of whatever changes the models of the node."""
    node = Node()
    routes = OllamaLibrary(node.service, SETTINGS).routes()
    return [(method, route.path.format(digest="x")) for route in routes for method in sorted(route.methods or ())]


@pytest.mark.parametrize(("method", "path"), library_routes())
async def test_what_changes_the_models_of_the_node_takes_an_admin(method: str, path: str) -> None:
    node = Node()
    body = {"model": "one", "from": "one", "source": "one", "destination": "new"}
    refused = await node.ask("user", method, path, body)
    assert refused.status_code == 403
    if method != "HEAD":
        assert refused.json()["code"] == "admin_required"
        assert "'user'" in refused.json()["error"]
    assert node.engine.own_library.calls == []
    assert (await node.ask("boss", method, path, body)).status_code != 403


def test_those_are_all_that_the_issue_names() -> None:
    assert {path for _, path in library_routes()} >= {"/api/pull", "/api/create", "/api/copy", "/api/delete"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/api/chat", {"model": "one", "messages": MESSAGES, "keep_alive": 0}),
        ("/api/generate", {"model": "one", "prompt": "hi"}),
        ("/api/embed", {"model": "one", "input": "hi"}),
        ("/api/show", {"model": "one"}),
    ],
)
async def test_a_key_of_scope_use_may_use(path: str, body: dict[str, Any]) -> None:
    assert (await Node().ask("user", "POST", path, body)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/ps", "/api/version", "/metrics", "/docs", "/ready"])
async def test_a_key_of_scope_use_may_look(path: str) -> None:
    assert (await Node().ask("user", "GET", path)).status_code != 403


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_a_key_of_scope_use_may_load_what_it_may_ask_but_not_unload(path: str) -> None:
    node = Node()
    loaded = await node.ask("user", "POST", path, {"model": "one"})
    assert (loaded.status_code, node.engine.loads) == (200, [("one", None)])
    refused = await node.ask("user", "POST", path, {"model": "one", "keep_alive": 0})
    assert (refused.status_code, refused.json()["code"], node.engine.unloads) == (403, "admin_required", [])
    assert (await node.ask("boss", "POST", path, {"model": "one", "keep_alive": 0})).status_code == 200
    assert node.engine.unloads == ["one"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "one", "messages": MESSAGES}),
        ("/api/generate", {"model": "one", "prompt": "hi"}),
        ("/api/generate", {"model": "one", "prompt": "hi", "raw": True}),
        ("/api/embed", {"model": "one", "input": "hi"}),
    ],
)
async def test_only_an_admin_says_how_long_a_model_stays(path: str, body: dict[str, Any]) -> None:
    node = Node()
    for key in ("user", "boss"):
        assert (await node.ask(key, "POST", path, {**body, "keep_alive": 0})).status_code == 200
    asked: list[Any] = [*node.engine.requests, *node.engine.completions, *node.engine.embedded]
    assert [request.keep_alive for request in asked] == [None, 0]
    assert (await node.ask("user", "POST", "/api/chat", {"model": "one", "keep_alive": 5})).status_code == 200
    assert node.engine.loads == [("one", None)]


async def test_without_keys_everybody_may_do_everything() -> None:
    node = Node(HttpSettings(port=0))
    assert (await node.ask("", "DELETE", "/api/delete", {"model": "one"})).status_code == 200
    assert (await node.ask("", "GET", "/extra/x")).status_code == 200
    assert node.engine.own_library.calls == [("delete", "one")]


async def test_an_extension_names_paths_that_take_an_admin() -> None:
    node = Node()
    asked = [("user", "/extra/x"), ("boss", "/extra/x"), ("user", "/extras"), ("user", "/extra")]
    assert [(await node.ask(key, "GET", path)).status_code for key, path in asked] == [403, 200, 200, 403]
    refused = await node.ask("user", "GET", "/extra/x")
    assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("permission_error", "admin_required")


async def test_a_scope_is_looked_at_after_the_key() -> None:
    refused = await Node().ask("guess", "POST", "/api/pull", {"model": "one"})
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")
