"""Who runs next: the bounded queue of one engine, as pure decisions. Times are seconds of any monotonic clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exo.types import QueueFull

MAX_OVERTAKES = 3
"""The fairness bound: a waiting request lets at most this many later ones pass, whose KV cache is warm."""


@dataclass(frozen=True)
class Ticket:
    """One request. A lower `priority` is served earlier; `conversation` is equal for turns of one conversation."""

    id: int
    priority: int = 0
    conversation: str = ""


@dataclass
class _Waiting:
    ticket: Ticket
    overtaken: int = 0


class AdmissionQueue:
    """Slots and a bounded queue: first come, first served within a priority.

    Among requests of the best priority one whose conversation ran last (its KV cache is warm) may pass the others, each
    of which is passed at most MAX_OVERTAKES times.
    """

    def __init__(self, *, slots: int, limit: int) -> None:
        if slots < 1 or limit < 0:
            raise ValueError(f"slots must be at least 1 and limit at least 0, not {slots} and {limit}")
        self.slots = slots
        self.limit = limit
        self._running: dict[int, Ticket] = {}
        self._waiting: list[_Waiting] = []
        self._warm: str = ""

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, ticket: Ticket, *, mean_run: float = 1.0) -> bool:
        """Admit a request: True if it may run now, False if it waits.

        `mean_run` is the mean duration of a run in seconds, for the Retry-After of QueueFull.
        """
        if self.running < self.slots and not self._waiting:
            self._running[ticket.id] = ticket
            return True
        if self.waiting >= self.limit:
            raise QueueFull(
                f"All {self.slots} slots are busy and {self.waiting} requests wait, the limit. Try again later.",
                retry_after=self._retry_after(mean_run),
            )
        self._waiting.append(_Waiting(ticket))
        return False

    def cancel(self, ticket_id: int) -> bool:
        """Take a waiting request out; False if it does not wait."""
        kept = [entry for entry in self._waiting if entry.ticket.id != ticket_id]
        found = len(kept) < len(self._waiting)
        self._waiting = kept
        return found

    def release(self, ticket_id: int) -> list[Ticket]:
        """A running request has ended; return the requests that start now, in order."""
        ended = self._running.pop(ticket_id, None)
        if ended is not None:
            self._warm = ended.conversation
        started = []
        while self._waiting and self.running < self.slots:
            ticket = self._take_next()
            self._running[ticket.id] = ticket
            started.append(ticket)
        return started

    def drain(self) -> list[Ticket]:
        """Empty the queue; return the requests that will not run."""
        dropped = [entry.ticket for entry in self._waiting]
        self._waiting = []
        return dropped

    def _take_next(self) -> Ticket:
        best = min(entry.ticket.priority for entry in self._waiting)
        peers = [entry for entry in self._waiting if entry.ticket.priority == best]
        chosen = self._warm_position(peers)
        for entry in peers[:chosen]:
            entry.overtaken += 1
        self._waiting.remove(peers[chosen])
        return peers[chosen].ticket

    def _warm_position(self, peers: list[_Waiting]) -> int:
        """Position of the first request with a warm cache that may pass all before it, else 0."""
        for position, entry in enumerate(peers):
            if self._warm and entry.ticket.conversation == self._warm:
                return position
            if entry.overtaken >= MAX_OVERTAKES:
                break
        return 0

    def _retry_after(self, mean_run: float) -> int:
        return max(1, min(60, math.ceil(mean_run * (self.waiting + 1) / self.slots)))
