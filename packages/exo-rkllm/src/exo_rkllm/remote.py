"""The engine rkllm by way of another server: an rkllama, which has the NPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from exo.inference import Availability, EngineContext
from exo.inference.remote import RemoteEngine
from exo.types import ChatRequest, CompletionRequest, ConfigurationError, Delta
from exo_rkllm.metrics import NpuMetrics
from exo_rkllm.ways import choose


class RkllmServerEngine(RemoteEngine):
    """Forwards to the rkllama at `url`. EXO_REMOTE_API_KEY, _SLOTS and the time limits of the engine remote count here.

    `rkllm_server_up` is what the latest check has found.
    """

    name: ClassVar[str] = "rkllm"

    def __init__(self, context: EngineContext, *, url: str | None = None) -> None:
        if url is None:
            way = choose(context.env)
            if way.url is None:
                raise ConfigurationError(f"No server was found for the engine rkllm: {way.availability.reason}")
            url = way.url
        self.metrics = NpuMetrics(context.registry)
        super().__init__(context, url=url)

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return choose(env).availability

    def on_exchange(self, endpoint: str, status: str) -> None:
        self.metrics.http_requests.labels(endpoint, status).inc()

    def on_check(self, up: bool) -> None:  # noqa: FBT001 - as in the class above
        self.metrics.server_up.set(up)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with contextlib.aclosing(self._timed(super().chat(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with contextlib.aclosing(self._timed(super().complete(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def close(self) -> None:
        await super().close()
        self.metrics.server_up.set(0)

    async def _timed(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """A run counts from the request to its last delta, or to where it broke off; a refused one does not count."""
        started, begun = time.monotonic(), False
        try:
            async with contextlib.aclosing(deltas):
                async for delta in deltas:
                    begun = True
                    yield delta
        finally:
            if begun:
                self.metrics.inference.observe(time.monotonic() - started)
