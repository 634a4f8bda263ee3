"""The node as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from exo.api.anthropic.routes import Anthropic
from exo.api.docs import Docs
from exo.api.extension import Extension
from exo.api.guard import Guard
from exo.api.node import Node
from exo.api.ollama.routes import Ollama
from exo.api.openai.routes import OpenAI
from exo.api.outermost import Outermost
from exo.api.responses.routes import Responses
from exo.api.settings import HttpSettings
from exo.cluster.membership.member import Member
from exo.inference import InferenceService
from exo.topology import NodeCapabilities, probe
from exo.types import NotFound


def create_app(
    service: InferenceService,
    settings: HttpSettings | None = None,
    *,
    preload: bool = True,
    probe_device: Callable[[], NodeCapabilities] = probe,
    extension: Extension | None = None,
    member: Member | None = None,
) -> ASGIApp:
    """The whole HTTP side of a node.

    The application's lifespan starts the service and the member of a cluster, and closes them at the end. Without a
    member the node belongs to no cluster.
    """
    settings, extension = settings or HttpSettings(), extension or Extension()
    taking_part = member or Member(service)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        service.start(preload=preload)
        taking_part.start()
        try:
            yield
        finally:
            await taking_part.close()
            await service.close()

    router = Router(
        routes=[
            *extension.routes,
            *Anthropic(service, settings).routes(),  # before OpenAI's, as its own clients ask for /v1/models too
            *OpenAI(service, settings).routes(),
            *Responses(service, settings).routes(),
            *Ollama(service, settings).routes(),
            *Node(service, settings, taking_part, probe_device).routes(),
            *Docs(extension).routes(),
        ],
        redirect_slashes=False,
        default=_not_found,
        lifespan=lifespan,
    )
    guard = Guard(router, settings, extension.admin_paths)
    return Outermost(guard, router, service.metrics, extension)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's shape
    raise NotFound(f"There is no {scope['path']} here. /docs lists the paths.")
