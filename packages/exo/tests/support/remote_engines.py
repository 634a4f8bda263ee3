"""The engine remote in front of a scripted server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from remote_server import RemoteServer, collect

from exo.inference import EngineContext
from exo.inference.remote import RemoteEngine
from exo.inference.remote.watch import Pace
from exo.models import ModelStore
from exo.types import ChatRequest, Message

Until = Callable[[Callable[[], bool]], Awaitable[None]]
OPENAI, OLLAMA = "/v1/chat/completions", "/api/chat"
REQUEST = ChatRequest(model="m", messages=(Message(role="user", content="hi"),))
LATER = 3600.0


class QuickEngine(RemoteEngine):
    """Looks at the server all the time, so that tests need not wait."""

    pace = Pace(refresh=0.01, first_retry=0.01, longest_retry=0.02, wait=5.0)


class SlowEngine(RemoteEngine):
    """Looks at the server once; later only when it is told to."""

    pace = Pace(refresh=LATER, first_retry=LATER, longest_retry=LATER, wait=5.0)


@contextlib.asynccontextmanager
async def engine_for(
    server: RemoteServer, kind: type[RemoteEngine] = SlowEngine, **env: str
) -> AsyncIterator[RemoteEngine]:
    """An engine that forwards to a server."""
    engine = kind(EngineContext(store=ModelStore(Path("nowhere")), env={"EXO_REMOTE_URL": server.url, **env}))
    try:
        yield engine
    finally:
        await engine.close()


async def text_of(engine: RemoteEngine, request: ChatRequest = REQUEST) -> str:
    """The text of an answer."""
    return "".join(delta.text for delta in await collect(engine.chat(request)))


async def ids(engine: RemoteEngine) -> list[str]:
    """The models, as the engine lists them."""
    return [card.id for card in await engine.models()]
