"""The paths that tell about the node itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo import __version__
from exo.api.endpoint import Endpoint
from exo.api.exchange import send_bytes, send_json
from exo.inference import InferenceService
from exo.topology import NodeCapabilities


class Node:
    """The endpoints, as ASGI applications.

    `probe` blocks, so it runs in a thread, and only in one: requests that come meanwhile share what it finds.
    """

    def __init__(self, service: InferenceService, probe: Callable[[], NodeCapabilities]) -> None:
        self._service = service
        self._probe = probe
        self._probing: asyncio.Future[NodeCapabilities] | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/", Endpoint(self.welcome), methods=["GET"]),
            Route("/healthcheck", Endpoint(self.healthcheck), methods=["GET"]),
            Route("/ready", Endpoint(self.ready), methods=["GET"]),
            Route("/metrics", Endpoint(self.metrics), methods=["GET"]),
            Route("/v1/topology", Endpoint(self.topology), methods=["GET"]),
        ]

    async def welcome(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        """Clients of Ollama ask it, by HEAD too, whether anybody is there."""
        await send_bytes(send, 200, b"exo is running. /docs lists the paths.\n", b"text/plain; charset=utf-8")

    async def healthcheck(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, {"status": "ok"})

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        readiness = await self._service.readiness()
        await send_json(send, 200 if readiness.ready else 503, readiness)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await self._service.update_model_info()
        text = generate_latest(self._service.metrics.registry)
        await send_bytes(send, 200, text, CONTENT_TYPE_LATEST.encode())

    async def topology(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().run_in_executor(None, self._probe)
        capabilities = await asyncio.shield(self._probing)
        engine = self._service.engine
        this_node = {
            "version": __version__,
            "engine": engine.name,
            "slots": engine.slots,
            "models": [card.id for card in await self._service.models()],
            "capabilities": capabilities,
        }
        await send_json(send, 200, {"nodes": [this_node]})
