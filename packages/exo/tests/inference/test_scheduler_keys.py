"""The scheduler with requests of several keys."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from exo.inference.scheduler import Lease, Scheduler
from exo.types import InvalidRequest, QueueFull


async def waiting(
    scheduler: Scheduler, *keys: str, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> list[asyncio.Task[Lease]]:
    """One task for each of the keys, in this order in the queue."""
    tasks = []
    for key in keys:
        tasks.append(asyncio.create_task(scheduler.acquire(key=key, meanwhile=meanwhile)))
        await asyncio.sleep(0)
    return tasks


async def refusal(task: asyncio.Task[Lease]) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        await asyncio.wait_for(task, 5)
    return caught.value


async def test_a_request_behind_a_flood_of_another_key_is_next() -> None:
    scheduler = Scheduler(slots=1, limit=9)
    running = await scheduler.acquire(key="flood")
    *flood, other = await waiting(scheduler, *["flood"] * 5, "other")
    running.release()
    (await asyncio.wait_for(other, 5)).release()
    assert [task.done() for task in flood] == [False] * 5
    for task in flood:
        (await asyncio.wait_for(task, 5)).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_the_newest_of_a_flood_gives_its_place_to_another_key() -> None:
    scheduler = Scheduler(slots=1, limit=3)
    running = await scheduler.acquire(key="flood")
    first, second, third = await waiting(scheduler, *["flood"] * 3)
    (other,) = await waiting(scheduler, "other")
    assert "gave up its place" in (await refusal(third)).message
    assert scheduler.waiting == 3
    (more,) = await waiting(scheduler, "flood")
    assert "the limit" in (await refusal(more)).message
    running.release()
    for task in (other, first, second):
        (await asyncio.wait_for(task, 5)).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_a_place_is_given_up_by_a_request_that_is_still_prepared() -> None:
    scheduler = Scheduler(slots=1, limit=2)
    prepared = asyncio.Event()

    async def prepare() -> None:
        await prepared.wait()

    running = await scheduler.acquire(key="flood")
    first, last = await waiting(scheduler, "flood", "flood", meanwhile=prepare)
    (other,) = await waiting(scheduler, "other")
    assert not last.done()
    prepared.set()
    await refusal(last)
    running.release()
    for task in (other, first):
        (await asyncio.wait_for(task, 5)).release()


async def refusals_of_two_requests_that_are_wrong_and_displaced() -> list[str]:
    scheduler = Scheduler(slots=1, limit=2)
    refused = asyncio.Event()

    async def refuse() -> None:
        await refused.wait()
        raise InvalidRequest("too long")

    running = await scheduler.acquire(key="flood")
    tasks = await waiting(scheduler, "flood", "flood", meanwhile=refuse)
    (other,) = await waiting(scheduler, "other")
    refused.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    running.release()
    (await other).release()
    return [str(result) for result in results]


async def test_a_refusal_of_its_own_comes_before_that_it_gave_up_its_place() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    assert await refusals_of_two_requests_that_are_wrong_and_displaced() == ["too long", "too long"]
    await asyncio.sleep(0)  # until then the loop itself holds the results
    gc.collect()
    assert complaints == [], "asyncio complains of an exception that nobody has looked at"


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_who_gives_up_a_place_may_be_cancelled_in_the_same_tick(*, cancel_first: bool) -> None:
    scheduler = Scheduler(slots=1, limit=2)
    running = await scheduler.acquire(key="flood")
    first, last = await waiting(scheduler, "flood", "flood")
    other = asyncio.create_task(scheduler.acquire(key="other"))
    if cancel_first:
        last.cancel()
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(0)
        last.cancel()
    results = await asyncio.gather(last, return_exceptions=True)
    assert isinstance(results[0], (asyncio.CancelledError, QueueFull))
    running.release()
    for task in (other, first):
        (await asyncio.wait_for(task, 5)).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_the_mean_run_follows_the_runs() -> None:
    now = 0.0
    scheduler = Scheduler(slots=1, limit=1, clock=lambda: now)
    assert scheduler.mean_run == 1.0
    lease = await scheduler.acquire()
    now += 11
    lease.release()
    assert scheduler.mean_run == pytest.approx(3.0)
