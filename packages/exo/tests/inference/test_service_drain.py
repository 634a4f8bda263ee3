"""Drain mode: new work is refused for now, what was accepted goes on."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import ClassVar

import pytest
from scripted_engine import LAST, FakeEngine, Until, asked, read, request, sample, service_for

from exo.inference import Capability, InferenceService
from exo.types import CompletionRequest, Delta, Draining, EmbeddingRequest, Embeddings, ShuttingDown, Usage


class Able(FakeEngine):
    """Completes and embeds too."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion", "embeddings"})

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        yield LAST

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        return Embeddings(vectors=((1.0,),), usage=Usage(prompt_tokens=1))


WORK: dict[str, Callable[[InferenceService], Awaitable[object]]] = {
    "chat": lambda service: service.chat(request()),
    "complete": lambda service: service.complete(CompletionRequest(model="m", prompt="x")),
    "embed": lambda service: service.embed(EmbeddingRequest(model="m", inputs=("x",))),
    "count": lambda service: service.count(request()),
    "load": lambda service: service.load("m"),
}


@pytest.mark.parametrize("name", WORK)
async def test_new_work_is_refused_until_it_is_taken_again(name: str) -> None:
    service = service_for(Able(LAST))
    service.draining = True
    with pytest.raises(Draining) as raised:
        await WORK[name](service)
    assert raised.value.retry_after >= 1
    service.draining = False
    result = await WORK[name](service)
    if name in ("chat", "complete"):
        await read(result)  # type: ignore[arg-type]  # these two are answers


async def test_what_runs_and_what_waits_goes_on(until: Until) -> None:
    engine = FakeEngine(Delta(text="a"), Delta(text="b"), LAST)
    service = service_for(engine)
    running = await service.chat(request())
    async with asked(service) as (waiting,):
        await until(lambda: sample(service, "exo_requests_queued") == 1)
        service.draining = True
        with pytest.raises(Draining):
            await service.chat(request())
        readiness = await service.readiness()
        assert (readiness.running, readiness.queued) == (1, 1)
        assert await read(running) == "ab"
        assert await read(await waiting) == "ab"


async def test_readiness_says_that_the_node_drains() -> None:
    service = service_for(FakeEngine())
    before = await service.readiness()
    service.draining = True
    during = await service.readiness()
    service.draining = False
    after = await service.readiness()
    assert (before.ready, before.draining, before.reason) == (True, False, "")
    assert (during.ready, during.draining, during.reason) == (False, True, "draining")
    assert after == before


async def test_a_node_that_ends_drains_for_good() -> None:
    service = service_for(FakeEngine())
    service.draining = True
    await service.end(0)
    service.draining = False
    readiness = await service.readiness()
    assert (readiness.ready, readiness.draining, readiness.reason) == (False, True, "shutting down")
    with pytest.raises(ShuttingDown):
        await service.chat(request())


async def test_a_model_may_be_unloaded_while_the_node_drains() -> None:
    engine = FakeEngine()
    service = service_for(engine)
    await service.load("m")
    service.draining = True
    await service.unload("m")
    assert engine.loaded() == []


async def test_the_log_tells_it_once(caplog: pytest.LogCaptureFixture) -> None:
    service = service_for(FakeEngine())
    with caplog.at_level(logging.INFO):
        for wanted in (False, True, True, False):
            service.draining = wanted
    assert [record.getMessage() for record in caplog.records] == [
        "the node takes no new requests, it drains",
        "the node takes new requests again",
    ]
