"""A real server in the test's own event loop, in front of an engine that does what a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from exo.api import HttpSettings, create_app
from exo.api.server import Server, bind
from exo.cluster.membership.member import Member
from exo.inference import Availability, EngineContext, InferenceEngine, InferenceService, NodeMetrics
from exo.models import ModelStore
from exo.topology import NodeCapabilities
from exo.types import ChatRequest, Delta, ExoError, ModelCard, Usage

Step = str | ExoError | Delta | asyncio.Event
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


class ScriptedEngine(InferenceEngine):
    """Plays `script` for every chat: a text is a delta, an exception is raised, an event is waited for."""

    name: ClassVar[str] = "scripted"

    def __init__(self, script: Sequence[Step] = ("Hello", " world"), *, slots: int = 2) -> None:
        super().__init__(EngineContext(store=ModelStore(Path("nowhere"))))
        self.script = list(script)
        self.requests: list[ChatRequest] = []
        self.closed_early = 0
        self._slots = slots

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return Availability(ok=True)

    @property
    def slots(self) -> int:
        return self._slots

    async def models(self) -> Sequence[ModelCard]:
        return [ModelCard(id="one", family="test", aliases=("uno",)), ModelCard(id="two/b:1", family="test")]

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        pass

    async def unload(self, model: str) -> None:
        pass

    def loaded(self) -> Sequence[str]:
        return ["one"]

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        pieces = 0
        try:
            for step in self.script:
                if isinstance(step, ExoError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Delta):
                    yield step
                    if step.finish_reason is not None:
                        return
                else:
                    pieces += 1
                    yield Delta(text=step)
            yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=pieces, cached_tokens=2))
        except (GeneratorExit, asyncio.CancelledError):
            self.closed_early += 1
            raise

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        return []

    async def count(self, request: ChatRequest) -> int:
        return 0


@dataclass
class Running:
    """A server that runs: its address, and what is behind it."""

    port: int
    engine: ScriptedEngine
    service: InferenceService
    server: Server
    member: Member
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"

    def sample(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        return self.service.metrics.registry.get_sample_value(name, labels or {})


@contextlib.asynccontextmanager
async def running(
    engine: ScriptedEngine | None = None,
    settings: HttpSettings | None = None,
    *,
    queue_limit: int = 8,
    make_member: Callable[[InferenceService, int], Member] | None = None,
) -> AsyncIterator[Running]:
    """Start a server on a free port, and stop it at the end. `make_member` gets its service and its port."""
    engine = engine or ScriptedEngine()
    settings = settings or HttpSettings(port=0, grace=0.2)
    service = InferenceService(engine, NodeMetrics(engine.context.registry), queue_limit=queue_limit)
    sock = bind(settings, no_auth=True)
    member = Member(service) if make_member is None else make_member(service, sock.getsockname()[1])
    app = create_app(service, settings, probe_device=NodeCapabilities, member=member)
    server = Server(app, service, settings)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield Running(sock.getsockname()[1], engine, service, server, member)
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], object], *, limit: float = 5.0) -> None:
    """Wait for a condition, not for time."""
    deadline = asyncio.get_running_loop().time() + limit
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still not {condition}"
        await asyncio.sleep(0.005)
