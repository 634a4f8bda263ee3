"""An engine that plays a script, and a service with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from prometheus_client import CollectorRegistry

from exo.inference import (
    Answer,
    Availability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    InferenceService,
    NodeMetrics,
)
from exo.models import ModelStore
from exo.types import (
    ChatRequest,
    Delta,
    Limits,
    Message,
    ModelCard,
    Timings,
    Usage,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]

LAST = Delta(
    finish_reason="stop",
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=5),
    timings=Timings(decode=2.0),
)
CONTEXT = EngineContext(ModelStore(Path("unused")))


class FakeEngine(InferenceEngine):
    """Plays `script`: deltas are said, exceptions raised, None hangs until it is cancelled."""

    name: ClassVar[str] = "fake"

    def __init__(self, *script: Delta | Exception | None, slots: int = 1) -> None:
        super().__init__(CONTEXT)
        self.script = script
        self.cards = [ModelCard(id="m", family="f", aliases=("em",))]
        self.load_errors: list[Exception] = []
        self.loading = asyncio.Event()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.loads: list[str] = []
        self.health_now = EngineHealth(ready=True)
        self.hanging = 0
        self.open_runs = 0
        self.closed = False
        self._slots = slots

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return Availability(ok=True)

    @property
    def slots(self) -> int:
        return self._slots

    async def models(self) -> Sequence[ModelCard]:
        return self.cards

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        self.loading.set()
        await self.may_load.wait()
        if self.load_errors:
            raise self.load_errors.pop(0)
        self.loads.append(model)

    async def unload(self, model: str) -> None:
        self.loads.remove(model)

    def loaded(self) -> Sequence[str]:
        return self.loads

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.open_runs += 1
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    self.hanging += 1
                    await asyncio.Event().wait()
                else:
                    yield step
        finally:
            self.open_runs -= 1

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        return []

    async def count(self, request: ChatRequest) -> int:
        return 0

    async def health(self) -> EngineHealth:
        return self.health_now

    async def close(self) -> None:
        self.closed = True


def service_for(engine: InferenceEngine, **options: object) -> InferenceService:
    return InferenceService(engine, NodeMetrics(CollectorRegistry()), **options)  # type: ignore[arg-type]


def request(model: str = "m", *, deadline: float | None = None) -> ChatRequest:
    message = Message(role="user", content="hello there")
    return ChatRequest(model=model, messages=(message,), limits=Limits(deadline=deadline))


def sample(service: InferenceService, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def asked(service: InferenceService, count: int = 1) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """So many requests under way at the same time."""
    tasks = [asyncio.create_task(service.chat(request())) for _ in range(count)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Answer):
                await result.aclose()


async def read(answer: Answer) -> str:
    async with contextlib.aclosing(answer):
        return "".join([delta.text async for delta in answer])
