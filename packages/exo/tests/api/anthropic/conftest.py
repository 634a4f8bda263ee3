"""An engine with every power that Anthropic's dialect asks for, and the application in front of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import httpx2
import pytest
from scripted_server import ScriptedEngine

from exo.api import create_app
from exo.inference import Capability, InferenceService, NodeMetrics
from exo.types import ChatRequest


class CapableEngine(ScriptedEngine):
    """Counts a token for each character."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "tools", "reasoning", "think_budget", "json_schema"}
    )

    async def count(self, request: ChatRequest) -> int:
        self.requests.append(request)
        return sum(len(message.content) for message in request.messages)


@pytest.fixture
def engine() -> ScriptedEngine:
    return CapableEngine()


@pytest.fixture
def ask(engine: ScriptedEngine) -> Callable[..., Awaitable[httpx2.Response]]:
    """Asks the application itself, without a server; by default /v1/messages."""
    app = create_app(InferenceService(engine, NodeMetrics(engine.context.registry)))

    async def send(
        body: Any = None, path: str = "/v1/messages", *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response: httpx2.Response = await client.request(method, path, json=body, headers=headers)
            return response

    return send
