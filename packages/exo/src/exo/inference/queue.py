"""Who runs next: the bounded queue of one engine, as pure decisions. Times are seconds of any monotonic clock."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from exo.types import QueueFull

MAX_OVERTAKES = 3
"""The fairness bound: a waiting request lets at most this many later ones pass, whose KV cache is warm."""
MAX_LOAD_OVERTAKES = 8
"""The same for one that waits for another model: a load costs as much as several answers."""


@dataclass(frozen=True)
class Ticket:
    """One request. A lower `priority` is served earlier; `conversation` is equal for turns of one conversation.

    `key` is the name of the key that asks, empty where there are none. `model` is the id of the one that it is for.
    """

    id: int
    priority: int = 0
    conversation: str = ""
    key: str = ""
    model: str = ""


@dataclass
class _Waiting:
    ticket: Ticket
    overtaken: int = 0


class AdmissionQueue:
    """Slots and a bounded queue, shared evenly between keys: first come, first served within a priority and a key.

    Among the keys that have a request of the best priority, the one that runs least is next, and of several the one
    whose last turn is longest ago. So a key of which nothing runs waits for one run of each other key at most.

    Among the requests of that key one whose conversation ran last (its KV cache is warm) may pass the others, each of
    which is passed at most MAX_OVERTAKES times, and one whose model is loaded those that need a load, each of which is
    passed at most MAX_LOAD_OVERTAKES times. Neither passes one of another key: a key that repeats itself would get more
    than its share.
    """

    def __init__(self, *, slots: int, limit: int) -> None:
        if slots < 1 or limit < 0:
            raise ValueError(f"slots must be at least 1 and limit at least 0, not {slots} and {limit}")
        self.slots = slots
        self.limit = limit
        self._running: dict[int, Ticket] = {}
        self._waiting: list[_Waiting] = []
        self._warm: str = ""
        self._turns = itertools.count(1)
        self._last_turns: dict[str, int] = {}

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
        if self._can_start:
            self._start(ticket)
            return True
        if self.waiting >= self.limit:
            raise QueueFull(
                f"All {self.slots} slots are busy and {self.waiting} requests wait, the limit. Try again later.",
                retry_after=self._retry_after(mean_run),
            )
        self._waiting.append(_Waiting(ticket))
        return False

    def make_room(self, ticket: Ticket) -> Ticket | None:
        """Call it before `submit`: in a full queue, the waiting request that gives up its place for this one, if any.

        It is the newest of the key that has the most places, if that key keeps as many as the arriving one has then.
        So with k keys each gets its k-th part of the places, and no two push each other out in turn. A request of a
        better priority than the arriving one stays.
        """
        if self._can_start or self.waiting < self.limit or not self._waiting:
            return None
        places = Counter(entry.ticket.key for entry in self._waiting)
        fullest = max(places, key=places.__getitem__)
        if places[ticket.key] + 1 >= places[fullest]:
            return None
        newest_first = [entry for entry in reversed(self._waiting) if entry.ticket.key == fullest]
        last = max(newest_first, key=lambda entry: entry.ticket.priority)
        if last.ticket.priority < ticket.priority:
            return None
        self._waiting.remove(last)
        return last.ticket

    def gave_way(self, *, mean_run: float = 1.0) -> QueueFull:
        """What a request is told that has given up its place. `mean_run` as for `submit`."""
        return QueueFull(
            "The queue is full, and this was the newest request of the key that has the most in it: it gave up its "
            "place to another key. Try again later.",
            retry_after=self._retry_after(mean_run),
        )

    def cancel(self, ticket_id: int) -> bool:
        """Take a waiting request out; False if it does not wait."""
        kept = [entry for entry in self._waiting if entry.ticket.id != ticket_id]
        found = len(kept) < len(self._waiting)
        self._waiting = kept
        return found

    def release(self, ticket_id: int, *, loaded: Collection[str] = ()) -> list[Ticket]:
        """A running request has ended; return the requests that start now, in order. `loaded` are ids of models."""
        ended = self._running.pop(ticket_id, None)
        if ended is not None:
            self._warm = ended.conversation
        started = []
        while self._waiting and self.running < self.slots:
            ticket = self._take_next(loaded)
            self._start(ticket)
            started.append(ticket)
        return started

    def drain(self) -> list[Ticket]:
        """Empty the queue; return the requests that will not run."""
        dropped = [entry.ticket for entry in self._waiting]
        self._waiting = []
        return dropped

    @property
    def _can_start(self) -> bool:
        return self.running < self.slots and not self._waiting

    def _start(self, ticket: Ticket) -> None:
        self._running[ticket.id] = ticket
        self._last_turns[ticket.key] = next(self._turns)

    def _take_next(self, loaded: Collection[str]) -> Ticket:
        best = min(entry.ticket.priority for entry in self._waiting)
        urgent = [entry for entry in self._waiting if entry.ticket.priority == best]
        key = self._next_key(urgent)
        peers = [entry for entry in urgent if entry.ticket.key == key]
        warm = self._warm_position(peers)
        chosen = _loaded_position(peers, loaded) if warm is None else warm
        for entry in peers[:chosen]:
            entry.overtaken += 1
        self._waiting.remove(peers[chosen])
        return peers[chosen].ticket

    def _next_key(self, entries: list[_Waiting]) -> str:
        running = Counter(ticket.key for ticket in self._running.values())
        keys = dict.fromkeys(entry.ticket.key for entry in entries)  # in the order of arrival
        return min(keys, key=lambda key: (running[key], self._last_turns.get(key, 0)))

    def _warm_position(self, peers: list[_Waiting]) -> int | None:
        """Position of the first request with a warm cache that may pass all before it; None if there is none."""
        for position, entry in enumerate(peers):
            if self._warm and entry.ticket.conversation == self._warm:
                return position
            if entry.overtaken >= MAX_OVERTAKES:
                break
        return None

    def _retry_after(self, mean_run: float) -> int:
        return max(1, min(60, math.ceil(mean_run * (self.waiting + 1) / self.slots)))


def _loaded_position(peers: list[_Waiting], loaded: Collection[str]) -> int:
    """Position of the first request whose model is loaded, if it may pass all before it, else 0."""
    for position, entry in enumerate(peers):
        if entry.ticket.model in loaded:
            return position
        if entry.overtaken >= MAX_LOAD_OVERTAKES:
            break
    return 0
