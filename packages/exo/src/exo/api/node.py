"""The paths that tell about the node itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from exo import __version__
from exo.api.decoding import decode
from exo.api.endpoint import Endpoint
from exo.api.exchange import read_body, send_bytes, send_json
from exo.api.node_schema import DrainBody, NodeReadiness, Topology, TopologyNode
from exo.api.settings import HttpSettings
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.challenge import CHALLENGE_PATH, ChallengeBody
from exo.cluster.membership.member import Member
from exo.cluster.membership.secret import is_challenge
from exo.inference import InferenceService
from exo.topology import NodeCapabilities
from exo.types import InvalidRequest

_LONGEST_CHALLENGE = 1024
"""Bytes of a body that comes without a key."""


class Node:
    """The endpoints, as ASGI applications.

    `probe` blocks, so it runs in a thread, and only in one: requests that come meanwhile share what it finds.
    """

    def __init__(
        self, service: InferenceService, settings: HttpSettings, member: Member, probe: Callable[[], NodeCapabilities]
    ) -> None:
        self._service = service
        self._settings = settings
        self._member = member
        self._probe = probe
        self._probing: asyncio.Future[NodeCapabilities] | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/", Endpoint(self.welcome), methods=["GET"]),
            Route("/healthcheck", Endpoint(self.healthcheck), methods=["GET"]),
            Route("/ready", Endpoint(self.ready), methods=["GET"]),
            Route("/metrics", Endpoint(self.metrics), methods=["GET"]),
            Route("/v1/topology", Endpoint(self.topology), methods=["GET"]),
            Route("/v1/drain", Endpoint(self.drain), methods=["POST"]),
            Route(CHALLENGE_PATH, Endpoint(self.challenge), methods=["POST"]),
        ]

    async def welcome(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        """Clients of Ollama ask it, by HEAD too, whether anybody is there."""
        await send_bytes(send, 200, b"exo is running. /docs lists the paths.\n", b"text/plain; charset=utf-8")

    async def healthcheck(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await send_json(send, 200, {"status": "ok"})

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        readiness = await self._readiness()
        await send_json(send, 200 if readiness.ready else 503, readiness)

    async def _readiness(self) -> NodeReadiness:
        return NodeReadiness(**vars(await self._service.readiness()), name=self._member.name, version=__version__)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await self._service.update_model_info()
        text = generate_latest(self._service.metrics.registry)
        await send_bytes(send, 200, text, CONTENT_TYPE_LATEST.encode())

    async def topology(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().run_in_executor(None, self._probe)
        capabilities = await asyncio.shield(self._probing)
        engine, port = self._service.engine, scope["server"][1]
        models = tuple(card.id for card in await self._service.models())
        this = NodeDescription(self._member.name, __version__, engine.name, engine.slots, models)
        first = _listed(this, self._member.addresses(), port or 0, state="active", capabilities=capabilities)
        others = [
            _listed(peer.node, peer.addresses, peer.port, state=peer.state, reason=peer.reason)
            for peer in self._member.peers()
        ]
        await send_json(send, 200, Topology([first, *others]))

    async def drain(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = decode(await read_body(scope, receive, self._settings), DrainBody)
        self._service.draining = body.drain
        await send_json(send, 200, await self._readiness())

    async def challenge(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = decode(await read_body(scope, receive, self._settings, longest=_LONGEST_CHALLENGE), ChallengeBody)
        if not is_challenge(body.challenge):
            raise InvalidRequest("challenge: expected 64 hexadecimal digits in lower case.", param="challenge")
        address, port = scope["server"]  # those of this very connection, also where the node listens on all addresses
        await send_json(send, 200, await self._member.prove(body.challenge, address, port))


def _listed(node: NodeDescription, addresses: tuple[str, ...], port: int, **others: Any) -> TopologyNode:
    return TopologyNode(**msgspec.structs.asdict(node), addresses=addresses, port=port, **others)
