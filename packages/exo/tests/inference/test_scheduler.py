from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from exo.inference.scheduler import Lease, Scheduler
from exo.types import QueueFull, ShuttingDown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def waiting_tasks(scheduler: Scheduler, count: int) -> list[asyncio.Task[Lease]]:
    """So many tasks that wait in the queue, in the order of their arrival."""
    tasks: list[asyncio.Task[Lease]] = []
    for _ in range(count):
        tasks.append(asyncio.create_task(scheduler.acquire()))
        await asyncio.sleep(0)
        assert scheduler.waiting == len(tasks)
    return tasks


async def ended(task: asyncio.Task[Lease]) -> BaseException | None:
    """The exception of a task; cancellation is one."""
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result if isinstance(result, BaseException) else None


async def test_a_free_slot_is_given_without_waiting() -> None:
    scheduler = Scheduler(slots=1, limit=0)
    lease = await scheduler.acquire()
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    lease.release()
    assert scheduler.running == 0


async def test_slots_are_handed_over_in_the_order_of_arrival() -> None:
    clock = Clock()
    scheduler = Scheduler(slots=1, limit=2, clock=clock)
    first = await scheduler.acquire()
    second, third = await waiting_tasks(scheduler, 2)
    clock.now += 5
    first.release()
    lease = await second
    assert lease.waited == 5.0
    assert not third.done()
    lease.release()
    (await third).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_a_full_queue_refuses_with_the_time_that_runs_take() -> None:
    clock = Clock()
    scheduler = Scheduler(slots=1, limit=0, clock=clock)
    for _ in range(40):
        lease = await scheduler.acquire()
        clock.now += 20
        lease.release()
    await scheduler.acquire()
    with pytest.raises(QueueFull) as caught:
        await scheduler.acquire()
    assert caught.value.retry_after == 20
    assert (scheduler.running, scheduler.waiting) == (1, 0)


async def test_a_second_release_is_harmless() -> None:
    scheduler = Scheduler(slots=1, limit=2)
    first = await scheduler.acquire()
    second, third = await waiting_tasks(scheduler, 2)
    first.release()
    first.release()
    await second
    await asyncio.sleep(0)
    assert not third.done()
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    (await second).release()
    (await third).release()


async def test_a_second_release_does_not_count_as_a_longer_run() -> None:
    clock = Clock()
    scheduler = Scheduler(slots=1, limit=0, clock=clock)
    lease = await scheduler.acquire()
    lease.release()
    clock.now += 1000
    lease.release()
    await scheduler.acquire()
    with pytest.raises(QueueFull) as caught:
        await scheduler.acquire()
    assert caught.value.retry_after == 1


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    scheduler = Scheduler(slots=1, limit=2)
    first = await scheduler.acquire()
    second, third = await waiting_tasks(scheduler, 2)
    second.cancel()
    assert isinstance(await ended(second), asyncio.CancelledError)
    assert scheduler.waiting == 1
    first.release()
    (await third).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_slot_given_to_a_request_that_is_cancelled_in_the_same_tick_goes_on(*, release_first: bool) -> None:
    scheduler = Scheduler(slots=1, limit=2)
    first = await scheduler.acquire()
    second, third = await waiting_tasks(scheduler, 2)
    if release_first:
        first.release()
    second.cancel()
    first.release()
    assert isinstance(await ended(second), asyncio.CancelledError)
    lease = await asyncio.wait_for(third, 5)
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    lease.release()
    assert scheduler.running == 0


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_slot_given_to_the_last_waiter_in_its_last_tick_is_free_again(*, release_first: bool) -> None:
    scheduler = Scheduler(slots=1, limit=1)
    first = await scheduler.acquire()
    (second,) = await waiting_tasks(scheduler, 1)
    if release_first:
        first.release()
    second.cancel()
    first.release()
    assert isinstance(await ended(second), asyncio.CancelledError)
    assert (scheduler.running, scheduler.waiting) == (0, 0)
    (await asyncio.wait_for(scheduler.acquire(), 5)).release()


async def test_close_refuses_the_waiting_and_the_new_and_leaves_the_running() -> None:
    scheduler = Scheduler(slots=1, limit=5)
    running = await scheduler.acquire()
    waiting = await waiting_tasks(scheduler, 3)
    scheduler.close()
    assert [type(await ended(task)) for task in waiting] == [ShuttingDown] * 3
    with pytest.raises(ShuttingDown):
        await scheduler.acquire()
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    running.release()
    assert scheduler.running == 0
    scheduler.close()


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_close_and_cancel_in_the_same_tick(*, cancel_first: bool) -> None:
    scheduler = Scheduler(slots=1, limit=5)
    running = await scheduler.acquire()
    (waiting,) = await waiting_tasks(scheduler, 1)
    for step in (waiting.cancel, scheduler.close) if cancel_first else (scheduler.close, waiting.cancel):
        step()
    assert isinstance(await ended(waiting), asyncio.CancelledError)
    running.release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_a_slot_handed_over_before_the_close_is_kept() -> None:
    scheduler = Scheduler(slots=1, limit=5)
    first = await scheduler.acquire()
    second, third = await waiting_tasks(scheduler, 2)
    first.release()
    scheduler.close()
    (await second).release()
    assert isinstance(await ended(third), ShuttingDown)
    assert scheduler.running == 0


async def stress(slots: int, limit: int, seed: int) -> Scheduler:
    """Many requests that hold their slot for a few ticks, a third of them cancelled at any moment."""
    chance = random.Random(seed)
    scheduler = Scheduler(slots=slots, limit=limit)
    most = 0

    async def request() -> None:
        nonlocal most
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        try:
            lease = await scheduler.acquire(
                priority=chance.randrange(2), conversation=chance.choice("ab"), key=chance.choice("xxxy")
            )
        except QueueFull:
            return
        try:
            most = max(most, scheduler.running)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            lease.release()

    tasks = [asyncio.create_task(request()) for _ in range(80)]
    while not all(task.done() for task in tasks):
        if chance.random() < 0.5:
            chance.choice(tasks).cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert most == slots
    return scheduler


@hypothesis_settings(max_examples=60)
@given(st.integers(1, 3), st.integers(3, 80), st.integers(0, 1 << 30))
async def test_after_any_mix_of_runs_and_cancellations_every_slot_is_free(slots: int, limit: int, seed: int) -> None:
    scheduler = await asyncio.wait_for(stress(slots, limit, seed), 10)
    assert (scheduler.running, scheduler.waiting) == (0, 0)
    leases = [await asyncio.wait_for(scheduler.acquire(), 5) for _ in range(slots)]
    assert scheduler.running == slots
    for lease in leases:
        lease.release()


async def test_what_can_be_done_meanwhile_is_done_only_by_those_who_wait() -> None:
    scheduler = Scheduler(slots=1, limit=1)
    done: list[str] = []

    async def prepare() -> None:
        done.append("prepared")

    first = await scheduler.acquire(meanwhile=prepare)
    assert done == []
    second = asyncio.create_task(scheduler.acquire(meanwhile=prepare))
    await asyncio.sleep(0)
    assert done == ["prepared"]
    first.release()
    (await second).release()


async def test_a_refusal_meanwhile_leaves_the_queue_to_the_others() -> None:
    scheduler = Scheduler(slots=1, limit=2)
    refused = asyncio.Event()

    async def refuse() -> None:
        await refused.wait()
        raise ShuttingDown("no")

    first = await scheduler.acquire()
    second = asyncio.create_task(scheduler.acquire(meanwhile=refuse))
    third = (await waiting_tasks_after(scheduler, second))[0]
    first.release()  # the slot now belongs to the second one, which is still being prepared
    assert scheduler.running == 1
    refused.set()
    assert isinstance(await ended(second), ShuttingDown)
    (await third).release()
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def waiting_tasks_after(scheduler: Scheduler, first: asyncio.Task[Lease]) -> list[asyncio.Task[Lease]]:
    """One more task in the queue, behind `first`."""
    await asyncio.sleep(0)
    assert not first.done()
    assert scheduler.waiting == 1
    task = asyncio.create_task(scheduler.acquire())
    await asyncio.sleep(0)
    return [task]
