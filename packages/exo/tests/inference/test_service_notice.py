"""The time between the wish that a node ends or drains and its first refusal: a proxy sees that it is not ready."""

from __future__ import annotations

import asyncio

import pytest
from scripted_engine import LAST, FakeEngine, read, request, service_for

from exo.types import Draining, ShuttingDown


async def test_requests_are_taken_while_the_notice_is_given() -> None:
    service = service_for(FakeEngine(LAST))
    service.notice = 1000
    ending = asyncio.create_task(service.end(grace=10))
    await asyncio.wait_for(service.leaving.wait(), 20)
    readiness = await service.readiness()
    assert (readiness.ready, readiness.draining, readiness.reason) == (False, True, "shutting down")
    await read(await service.chat(request()))
    service.hurry()
    await asyncio.wait_for(ending, 20)
    assert service.ending.is_set()
    with pytest.raises(ShuttingDown):
        await service.chat(request())


async def test_hurry_ends_the_time_of_running_answers_too() -> None:
    service = service_for(FakeEngine(LAST))
    answer = await service.chat(request())
    service.notice = 1000
    ending = asyncio.create_task(service.end(grace=1000))
    await asyncio.wait_for(service.leaving.wait(), 20)
    service.hurry()
    await asyncio.wait_for(ending, 20)
    await answer.aclose()


async def test_a_node_that_is_to_drain_takes_requests_until_the_notice_is_over() -> None:
    service = service_for(FakeEngine(LAST))
    service.notice = 1000
    service.draining = True
    assert (await service.readiness()).reason == "draining"
    await read(await service.chat(request()))
    service.draining = False
    service.notice = 0.1
    service.draining = True

    async def until_refused() -> None:
        while True:
            await read(await service.chat(request()))

    with pytest.raises(Draining):
        await asyncio.wait_for(until_refused(), 20)
