"""The queue between several keys: whose turn it is, and who gives up a place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.queue import MAX_OVERTAKES, AdmissionQueue, Ticket
from exo.types import QueueFull


def queue_with(*keys: str, slots: int = 1, limit: int = 100) -> AdmissionQueue:
    """A queue whose slots are taken by nobody in particular (ids -1, -2 …), and one waiting request for each key."""
    queue = AdmissionQueue(slots=slots, limit=limit)
    for number in range(1, slots + 1):
        assert queue.submit(Ticket(-number, key="before"))
    for number, key in enumerate(keys):
        assert not queue.submit(Ticket(number, key=key))
    return queue


def keys_in_order(queue: AdmissionQueue, first: int = -1) -> str:
    """The keys in the order in which they start, one after the other."""
    order, running = [], first
    while started := queue.release(running):
        order += [ticket.key for ticket in started]
        running = started[-1].id
    return "".join(order)


def test_keys_take_turns_and_each_is_served_in_the_order_of_arrival() -> None:
    assert keys_in_order(queue_with(*"aaaabbc")) == "abcabaa"
    queue = queue_with(*"aab")
    assert [ticket.id for ticket in (*queue.release(-1), *queue.release(0), *queue.release(2))] == [0, 2, 1]


def test_whoever_comes_behind_a_flood_is_next() -> None:
    queue = queue_with(*"a" * 50)
    assert queue.release(-1)[0].key == "a"
    queue.submit(Ticket(99, key="b"))
    assert queue.release(0)[0].id == 99


def test_a_key_that_had_a_slot_without_waiting_has_had_its_turn() -> None:
    queue = AdmissionQueue(slots=1, limit=9)
    queue.submit(Ticket(0, key="a"))
    queue.submit(Ticket(1, key="a"))
    queue.submit(Ticket(2, key="b"))
    assert queue.release(0)[0].key == "b"


def test_a_priority_counts_more_than_a_turn() -> None:
    queue = queue_with(*"ab")
    queue.submit(Ticket(7, priority=-1, key="a"))
    queue.submit(Ticket(8, priority=-1, key="a"))
    assert keys_in_order(queue) == "aaba"


def test_a_key_with_long_runs_leaves_a_slot_to_the_others() -> None:
    queue = queue_with(*"aaaa", slots=2)
    assert [queue.release(-number)[0].id for number in (1, 2)] == [0, 1]
    for number in range(10, 13):
        queue.submit(Ticket(number, key="b"))
    assert queue.release(0)[0].id == 10
    assert queue.release(10)[0].id == 11, "one slot each, however short the runs of b are"
    assert queue.release(11)[0].id == 12
    assert queue.release(1)[0].key == "a"


def test_a_warm_cache_is_no_reason_to_pass_another_key() -> None:
    queue = AdmissionQueue(slots=1, limit=9)
    queue.submit(Ticket(0, conversation="x", key="a"))
    for number, key, conversation in [(1, "a", "y"), (2, "a", "x"), (3, "b", "z")]:
        queue.submit(Ticket(number, conversation=conversation, key=key))
    assert queue.release(0)[0].id == 3
    queue.submit(Ticket(4, conversation="x", key="b"))
    assert queue.release(3)[0].id == 1, "nothing of a is warm any more"


def test_within_a_key_the_conversation_in_the_cache_goes_first() -> None:
    queue = AdmissionQueue(slots=1, limit=9)
    queue.submit(Ticket(0, conversation="x", key="a"))
    queue.submit(Ticket(1, conversation="y", key="a"))
    queue.submit(Ticket(2, conversation="x", key="a"))
    assert queue.release(0)[0].id == 2


def test_there_is_room_without_giving_way_while_a_place_is_free() -> None:
    assert AdmissionQueue(slots=1, limit=0).make_room(Ticket(1, key="b")) is None
    assert queue_with(*"aaa", limit=4).make_room(Ticket(9, key="b")) is None
    assert queue_with(limit=0).make_room(Ticket(9, key="b")) is None


@pytest.mark.parametrize(
    ("waiting", "arriving", "gives_way"),
    [
        ("aaaa", "b", 3),
        ("aaab", "b", 2),
        ("aabb", "b", None),
        ("aaaab", "b", 3),
        ("aab", "b", None),
        ("aab", "c", 1),
        ("ab", "c", None),
        ("aaaa", "a", None),
        ("abbbcc", "d", 3),
        ("aaaa", "", 3),
        ("", "b", None),
    ],
)
def test_the_newest_of_the_fullest_key_gives_way(waiting: str, arriving: str, gives_way: int | None) -> None:
    queue = queue_with(*waiting, limit=len(waiting))
    found = queue.make_room(Ticket(99, key=arriving))
    assert (found.id if found else None) == gives_way
    assert queue.waiting == len(waiting) - (gives_way is not None)


def test_of_the_fullest_key_the_least_urgent_gives_way_and_never_a_more_urgent_one() -> None:
    queue = queue_with(limit=4)
    for number, priority in enumerate([0, 2, 2, 1]):
        queue.submit(Ticket(number, priority, key="a"))
    found = queue.make_room(Ticket(9, priority=2, key="b"))
    assert found is not None
    assert found.id == 2
    queue.submit(Ticket(9, priority=2, key="b"))
    assert queue.make_room(Ticket(10, priority=3, key="c")) is None


def test_who_gave_way_is_told_so_and_when_to_come_back() -> None:
    refusal = queue_with(*"aaa", limit=3).gave_way(mean_run=2.0)
    assert (refusal.retry_after, refusal.code, "another key" in refusal.message) == (8, "queue_full", True)


KEYS = "abc"


@dataclass
class Shared:
    """A queue under random commands of several keys, and what happened to each ticket.

    `turns` counts, for each key that waits and has nothing running, the turns that each other key has had meanwhile.
    """

    queue: AdmissionQueue
    tickets: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)
    running: list[Ticket] = field(default_factory=list)
    turns: dict[str, Counter[str]] = field(default_factory=lambda: {key: Counter() for key in KEYS})
    passed: Counter[int] = field(default_factory=Counter)

    def submit(self, key: str, conversation: str) -> None:
        ticket = Ticket(len(self.tickets), conversation=conversation, key=key)
        self.tickets.append(ticket)
        places = Counter(other.key for other in self.waiting)
        full = len(self.waiting) == self.queue.limit and len(self.running) == self.queue.slots
        gone = self.queue.make_room(ticket)
        if gone is not None:
            assert full
            assert places[gone.key] == max(places.values()) > places[key] + 1
            assert gone == [other for other in self.waiting if other.key == gone.key][-1]
            self.waiting.remove(gone)
        try:
            runs = self.queue.submit(ticket)
        except QueueFull:
            assert gone is None
            share = self.queue.limit // len({key, *places})
            assert places[key] >= share, "refused with less than its share of the places"
            return
        (self.running if runs else self.waiting).append(ticket)

    def release(self, position: int) -> None:
        if not self.running:
            return
        ended = self.running.pop(position % len(self.running))
        for ticket in self.queue.release(ended.id):
            runs = Counter(other.key for other in self.running)
            assert all(runs[ticket.key] <= runs[other.key] for other in self.waiting), "another key runs less"
            self.note_start(ticket, runs)

    def note_start(self, ticket: Ticket, runs: Counter[str]) -> None:
        before = self.waiting[: self.waiting.index(ticket)]
        self.passed.update(other.id for other in before if other.key == ticket.key)
        self.waiting.remove(ticket)
        self.running.append(ticket)
        idle = {other.key for other in self.waiting if not runs[other.key]} - {ticket.key}
        for key, turns in self.turns.items():
            if key in idle:
                turns[ticket.key] += 1
            else:
                turns.clear()

    def cancel(self, position: int) -> None:
        if self.waiting:
            assert self.queue.cancel(self.waiting.pop(position % len(self.waiting)).id)

    def check(self) -> None:
        assert len(self.waiting) == self.queue.waiting <= self.queue.limit
        assert len(self.running) == self.queue.running <= self.queue.slots
        assert max(self.passed.values(), default=0) <= MAX_OVERTAKES
        assert all(turns <= Counter(KEYS) for turns in self.turns.values()), "one with nothing running was passed twice"


submits = st.tuples(st.just("submit"), st.sampled_from(KEYS), st.sampled_from(["", "x", "y"]))
releases = st.tuples(st.just("release"), st.integers(0, 9))
cancels = st.tuples(st.just("cancel"), st.integers(0, 9))


@given(
    st.integers(1, 3),
    st.integers(0, 9),
    st.lists(st.one_of(submits, submits, submits, releases, cancels), max_size=80),
)
def test_whatever_keys_do_places_and_turns_are_shared(
    slots: int, limit: int, commands: list[tuple[str, int] | tuple[str, str, str]]
) -> None:
    shared = Shared(AdmissionQueue(slots=slots, limit=limit))
    for name, *values in commands:
        getattr(shared, name)(*values)
        shared.check()
    while shared.running:
        shared.release(0)
        shared.check()
    assert shared.waiting == []


@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=60))
def test_with_one_slot_no_key_has_two_turns_while_another_waits(arrivals: list[str]) -> None:
    order = keys_in_order(queue_with(*arrivals))
    left = Counter(arrivals)
    assert Counter(order) == left
    for position, key in enumerate(order):
        left[key] -= 1
        following = order[position + 1 :]
        others = {other for other in left if left[other] and other != key}
        until_again = following.find(key) if key in following else len(following)
        assert others <= set(following[:until_again]), f"{key} had two turns in {order}"


def places_of(queue: AdmissionQueue) -> Counter[str]:
    return Counter(ticket.key for ticket in queue.drain())


@given(st.integers(1, 20), st.lists(st.sampled_from(KEYS), max_size=100))
def test_nobody_is_pushed_out_again_once_the_places_are_shared(limit: int, arrivals: list[str]) -> None:
    """However many more arrive, a full queue comes to rest: a request is refused at once, or stays."""
    queue = queue_with(limit=limit)
    rounds = [*arrivals, *KEYS * limit]
    given_up = 0
    for number, key in enumerate([*rounds, *KEYS * limit]):
        ticket = Ticket(number, key=key)
        if queue.make_room(ticket) is not None:
            assert number < len(rounds), "the places were shared, and still somebody had to go"
            given_up += 1
        try:
            queue.submit(ticket)
        except QueueFull:
            continue
    places = places_of(queue)
    assert sum(places.values()) == limit
    assert given_up <= limit * len(KEYS)
    if limit >= len(KEYS):
        assert max(places.values()) - min(places[key] for key in KEYS) <= 1
