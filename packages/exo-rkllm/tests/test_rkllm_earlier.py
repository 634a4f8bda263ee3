"""The endpoints of earlier servers, on an engine that only notes what it is asked for."""

from __future__ import annotations

from typing import Any

import httpx2
from ollama_engine import FakeLibrary, OllamaEngine

from exo.api import HttpSettings, create_app
from exo.api.dialect import Extension
from exo.inference import InferenceService, NodeMetrics
from exo_rkllm.server.earlier import EARLIER_PATHS, Earlier


async def post(engine: OllamaEngine, path: str, body: Any) -> httpx2.Response:
    service, settings = InferenceService(engine, NodeMetrics(engine.context.registry)), HttpSettings(port=0)
    earlier = Extension(routes=Earlier(service, settings).routes(), plain_error_paths=EARLIER_PATHS)
    app = create_app(service, settings, extension=earlier)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
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
