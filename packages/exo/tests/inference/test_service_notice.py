"""The time between the wish that a node ends and its first refusal, in which a proxy sees that it is not ready."""

from __future__ import annotations

import asyncio

import pytest
from scripted_engine import LAST, FakeEngine, read, request, service_for

from exo.types import ShuttingDown


async def test_requests_are_taken_while_the_notice_is_given() -> None:
    service = service_for(FakeEngine(LAST))
    ending = asyncio.create_task(service.end(grace=10, notice=1000))
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
    ending = asyncio.create_task(service.end(grace=1000, notice=1000))
    await asyncio.wait_for(service.leaving.wait(), 20)
    service.hurry()
    await asyncio.wait_for(ending, 20)
    await answer.aclose()
