"""The scheduler: the admission queue of one engine, driven by asyncio."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Collection

from exo.inference.queue import AdmissionQueue, Ticket
from exo.types import ExoError, ShuttingDown

_SMOOTHING = 0.2


class Lease:
    """The right to run one request; give it back with `release`, at least once."""

    def __init__(self, ticket: Ticket, waited: float, release: Callable[[Ticket, float], None], now: float) -> None:
        self.waited = waited
        self._ticket = ticket
        self._release = release
        self._started = now
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._release(self._ticket, self._started)


class Scheduler:
    """Hands out leases. One owner: the event loop that calls it. `loaded` tells the ids of the models in memory.

    Blocks: `acquire`, until a slot is free. Times out: nothing, a deadline cancels the awaiting task. Can race: a slot
    handed to a request that is cancelled in the same moment, in which case the slot goes on to the next one; a refusal
    of a request that waits, with one that its `meanwhile` raises, which then wins.
    """

    def __init__(
        self,
        *,
        slots: int,
        limit: int,
        loaded: Callable[[], Collection[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loaded = loaded
        self._queue = AdmissionQueue(slots=slots, limit=limit)
        self._clock = clock
        self._ids = itertools.count(1)
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._mean_run = 1.0
        self._closed = False

    @property
    def slots(self) -> int:
        return self._queue.slots

    @property
    def limit(self) -> int:
        return self._queue.limit

    @property
    def running(self) -> int:
        return self._queue.running

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def mean_run(self) -> float:
        """How many seconds a run takes, the latest ones counting most."""
        return self._mean_run

    async def acquire(
        self,
        *,
        priority: int = 0,
        conversation: str = "",
        key: str = "",
        model: str = "",
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> Lease:
        """Wait for a slot. Raises QueueFull at once, or later for another key's sake; ShuttingDown when the node ends.

        `meanwhile` is called if there is something to wait for; what it raises takes the request out of the queue, as
        cancelling the awaiting task does.
        """
        if self._closed:
            raise shutting_down()
        arrived = self._clock()
        ticket = Ticket(next(self._ids), priority, conversation, key, model)
        displaced = self._queue.make_room(ticket)
        if displaced is not None:
            self._fail(displaced.id, self._queue.gave_way(mean_run=self._mean_run))
        if not self._queue.submit(ticket, mean_run=self._mean_run):
            await self._wait_for_turn(ticket, meanwhile)
        now = self._clock()
        return Lease(ticket, now - arrived, self._on_release, now)

    def close(self) -> None:
        """Take no new requests and refuse the waiting ones; running ones go on."""
        self._closed = True
        for ticket in self._queue.drain():
            self._fail(ticket.id, shutting_down())

    async def _wait_for_turn(self, ticket: Ticket, meanwhile: Callable[[], Awaitable[None]] | None) -> None:
        turn = self._waiters[ticket.id] = asyncio.get_running_loop().create_future()
        try:
            if meanwhile is not None:
                await meanwhile()
            await turn
        except BaseException:  # also a cancellation: the place or the slot has to become free
            if not self._queue.cancel(ticket.id):
                self._start(self._queue.release(ticket.id, loaded=self._loaded()))
            raise
        finally:
            del self._waiters[ticket.id]
            if turn.done() and not turn.cancelled():
                turn.exception()  # else asyncio complains of a refusal that came second

    def _fail(self, ticket_id: int, error: ExoError) -> None:
        waiter = self._waiters[ticket_id]
        if not waiter.done():
            waiter.set_exception(error)

    def _on_release(self, ticket: Ticket, started: float) -> None:
        self._mean_run += _SMOOTHING * (self._clock() - started - self._mean_run)
        self._start(self._queue.release(ticket.id, loaded=self._loaded()))

    def _start(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            waiter = self._waiters[ticket.id]
            if not waiter.done():
                waiter.set_result(None)


def shutting_down() -> ShuttingDown:
    return ShuttingDown("The node is shutting down and takes no new requests. Use another node, or try again later.")
