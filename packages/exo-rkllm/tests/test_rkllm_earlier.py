"""The endpoints of earlier servers, on an engine that only notes what it is asked for."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from api_keys import bearer, ring_of
from ollama_engine import FakeLibrary, OllamaEngine
from prometheus_client import CollectorRegistry

from exo.api import HttpSettings, create_app
from exo.api.dialect import Extension
from exo.inference import InferenceService, NodeMetrics
from exo.inference.caller import Caller
from exo_rkllm.server.earlier import EARLIER_ADMIN_PATHS, EARLIER_PATHS, Earlier

LOCAL = HttpSettings(port=0)
WITH_KEYS = HttpSettings(port=0, keys=ring_of(Caller("user", admin=False), Caller("boss")))


async def post(
    engine: OllamaEngine, path: str, body: Any, settings: HttpSettings = LOCAL, key: str = ""
) -> httpx2.Response:
    service = InferenceService(engine, NodeMetrics(CollectorRegistry()))
    earlier = Extension(
        routes=Earlier(service, settings).routes(),
        plain_error_paths=EARLIER_PATHS,
        admin_paths=EARLIER_ADMIN_PATHS,
    )
    app = create_app(service, settings, extension=earlier)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=bearer(key)) as client:
        response: httpx2.Response = await client.post(path, json=body)
        return response


class _Library(FakeLibrary):
    """Notes which models had been unloaded when one was deleted."""

    def __init__(self, unloads: list[str]) -> None:
        super().__init__()
        self.unloads = unloads
        self.unloaded: list[str] = []

    def delete(self, model_id: str) -> list[str]:
        self.unloaded = list(self.unloads)
        return super().delete(model_id)


async def test_a_model_is_unloaded_before_it_is_deleted_and_once_more_afterwards() -> None:
    engine = OllamaEngine()
    engine.own_library = library = _Library(engine.unloads)
    response = await post(engine, "/rm", {"model": "one"})
    assert response.status_code == 200
    assert (library.calls, library.unloaded) == ([("delete", "one")], ["one"])
    assert engine.unloads == ["one", "one"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/load_model", {"model_name": "one"}),
        ("/unload_model", {"model_name": "one"}),
        ("/unload_model", {}),
        ("/pull", {"model": "owner/repository"}),
        ("/rm", {"model": "one"}),
    ],
)
async def test_what_changes_models_takes_a_key_of_scope_admin(path: str, body: dict[str, str]) -> None:
    engine = OllamaEngine()
    refused = await post(engine, path, body, WITH_KEYS, "user")
    assert (refused.status_code, refused.json()["code"]) == (403, "admin_required")
    assert (engine.own_library.calls, engine.loads, engine.unloads) == ([], [], [])
    assert (await post(engine, path, body, WITH_KEYS, "boss")).status_code == 200
    assert engine.own_library.calls or engine.loads or engine.unloads


async def test_a_key_of_scope_use_may_ask() -> None:
    assert (await post(OllamaEngine(), "/generate", {"messages": "hi"}, WITH_KEYS, "user")).status_code == 200
