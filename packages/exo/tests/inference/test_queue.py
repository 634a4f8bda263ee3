from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.queue import MAX_LOAD_OVERTAKES, MAX_OVERTAKES, AdmissionQueue, Ticket
from exo.types import QueueFull


def queue_with_a_runner(*, slots: int = 1, limit: int = 100) -> AdmissionQueue:
    queue = AdmissionQueue(slots=slots, limit=limit)
    for number in range(slots):
        assert queue.submit(Ticket(-number, conversation="warm"))
    return queue


def order_of(queue: AdmissionQueue, first: int = 0) -> list[int]:
    """Release one after the other; the ids in the order in which they start."""
    order: list[int] = []
    running = first
    while started := queue.release(running):
        (ticket,) = started
        order.append(ticket.id)
        running = ticket.id
    return order


@pytest.mark.parametrize(("slots", "limit"), [(0, 1), (-1, 1), (1, -1)])
def test_impossible_sizes_are_refused(slots: int, limit: int) -> None:
    with pytest.raises(ValueError, match=f"not {slots} and {limit}"):
        AdmissionQueue(slots=slots, limit=limit)


def test_requests_run_at_once_while_slots_are_free() -> None:
    queue = AdmissionQueue(slots=2, limit=1)
    assert [queue.submit(Ticket(number)) for number in (1, 2, 3)] == [True, True, False]
    assert (queue.running, queue.waiting) == (2, 1)


def test_first_come_first_served() -> None:
    queue = queue_with_a_runner()
    for number in range(1, 6):
        queue.submit(Ticket(number))
    assert order_of(queue) == [1, 2, 3, 4, 5]


def test_a_lower_priority_number_is_served_earlier() -> None:
    queue = queue_with_a_runner()
    for number, priority in enumerate([0, 5, -1, 0, -1], start=1):
        queue.submit(Ticket(number, priority))
    assert order_of(queue) == [3, 5, 1, 4, 2]


def test_a_full_queue_refuses_and_forgets_the_request() -> None:
    queue = queue_with_a_runner(limit=1)
    queue.submit(Ticket(1))
    with pytest.raises(QueueFull, match="1 slots are busy and 1 requests wait"):
        queue.submit(Ticket(2))
    assert order_of(queue) == [1]
    assert (queue.running, queue.waiting) == (0, 0)


def test_a_queue_without_places_still_has_its_slots() -> None:
    queue = AdmissionQueue(slots=1, limit=0)
    assert queue.submit(Ticket(1))
    with pytest.raises(QueueFull):
        queue.submit(Ticket(2))


@pytest.mark.parametrize(
    ("slots", "waiting", "mean_run", "seconds"),
    [(1, 0, 0.01, 1), (1, 3, 2.0, 8), (4, 3, 2.0, 2), (2, 2, 1.0, 2), (1, 9, 1000.0, 60), (1, 3, 0.0, 1)],
)
def test_retry_after_is_when_a_place_may_be_free(slots: int, waiting: int, mean_run: float, seconds: int) -> None:
    queue = queue_with_a_runner(slots=slots, limit=waiting)
    for number in range(1, waiting + 1):
        queue.submit(Ticket(number))
    with pytest.raises(QueueFull) as caught:
        queue.submit(Ticket(99), mean_run=mean_run)
    assert caught.value.retry_after == seconds


def test_only_waiting_requests_can_be_cancelled() -> None:
    queue = queue_with_a_runner()
    for number in (1, 2, 3):
        queue.submit(Ticket(number))
    assert queue.cancel(2)
    assert not queue.cancel(2)
    assert not queue.cancel(0), "it runs"
    assert not queue.cancel(77), "it was never there"
    assert order_of(queue) == [1, 3]


def test_drain_returns_what_will_not_run_and_leaves_what_runs() -> None:
    queue = queue_with_a_runner()
    waiting = [Ticket(1), Ticket(2, priority=-1)]
    for ticket in waiting:
        queue.submit(ticket)
    assert queue.drain() == waiting
    assert (queue.running, queue.waiting) == (1, 0)
    assert queue.release(0) == []
    assert queue.running == 0


def test_a_release_of_what_does_not_run_starts_nothing() -> None:
    queue = queue_with_a_runner()
    queue.submit(Ticket(1))
    assert queue.release(77) == []
    assert queue.release(1) == [], "it waits"
    assert (queue.running, queue.waiting) == (1, 1)
    assert [ticket.id for ticket in queue.release(0)] == [1]
    assert queue.release(0) == [], "released twice"
    assert queue.running == 1


def test_the_conversation_in_the_cache_goes_first() -> None:
    queue = queue_with_a_runner()
    for number, conversation in enumerate(["cold", "cold", "warm"], start=1):
        queue.submit(Ticket(number, conversation=conversation))
    assert order_of(queue) == [3, 1, 2]


def test_a_warm_cache_does_not_beat_a_better_priority() -> None:
    queue = queue_with_a_runner()
    queue.submit(Ticket(1, priority=1, conversation="warm"))
    queue.submit(Ticket(2, priority=0, conversation="cold"))
    assert order_of(queue) == [2, 1]


def test_requests_without_a_conversation_are_never_warm() -> None:
    queue = AdmissionQueue(slots=1, limit=9)
    queue.submit(Ticket(0))
    queue.submit(Ticket(1, conversation="x"))
    queue.submit(Ticket(2))
    assert order_of(queue) == [1, 2]


def test_a_request_that_was_passed_often_enough_is_next() -> None:
    queue = queue_with_a_runner()
    queue.submit(Ticket(1, conversation="cold"))
    for number in range(2, 10):
        queue.submit(Ticket(number, conversation="warm"))
    order = order_of(queue)
    assert order.index(1) == MAX_OVERTAKES


@dataclass
class Run:
    """A queue under random commands, with everything that happened to each ticket."""

    queue: AdmissionQueue
    tickets: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)
    running: list[Ticket] = field(default_factory=list)
    started: Counter[int] = field(default_factory=Counter)
    passed: Counter[int] = field(default_factory=Counter)
    ended: set[int] = field(default_factory=set)

    def submit(self, priority: int, conversation: str) -> None:
        ticket = Ticket(len(self.tickets), priority, conversation)
        full = len(self.running) == self.queue.slots and len(self.waiting) == self.queue.limit
        self.tickets.append(ticket)
        try:
            runs = self.queue.submit(ticket)
        except QueueFull:
            assert full, "refused with a place free"
            self.ended.add(ticket.id)
            return
        assert not full, "admitted over the limit"
        if runs:
            self.note_start(ticket)
        else:
            self.waiting.append(ticket)

    def release(self, position: int) -> None:
        if not self.running:
            return
        ended = self.running.pop(position % len(self.running))
        self.ended.add(ended.id)
        for ticket in self.queue.release(ended.id):
            before = self.waiting[: self.waiting.index(ticket)]
            assert all(ticket.priority <= other.priority for other in self.waiting)
            self.passed.update(other.id for other in before if other.priority == ticket.priority)
            self.waiting.remove(ticket)
            self.note_start(ticket)

    def cancel(self, position: int) -> None:
        if not self.waiting:
            return
        ticket = self.waiting.pop(position % len(self.waiting))
        assert self.queue.cancel(ticket.id)
        self.ended.add(ticket.id)

    def note_start(self, ticket: Ticket) -> None:
        self.running.append(ticket)
        self.started[ticket.id] += 1

    def check(self) -> None:
        assert len(self.running) == self.queue.running <= self.queue.slots
        assert len(self.waiting) == self.queue.waiting <= self.queue.limit
        assert not self.waiting or len(self.running) == self.queue.slots, "a slot is free and somebody waits"
        assert max(self.started.values(), default=0) <= 1, "started twice"
        assert max(self.passed.values(), default=0) <= MAX_OVERTAKES, "passed too often"
        known = {ticket.id for ticket in (*self.waiting, *self.running)} | self.ended
        assert known == {ticket.id for ticket in self.tickets}, "a request was lost"


submits = st.tuples(st.just("submit"), st.integers(0, 1), st.sampled_from(["", "a", "a", "b"]))
releases = st.tuples(st.just("release"), st.integers(0, 9))
cancels = st.tuples(st.just("cancel"), st.integers(0, 9))


@given(
    st.integers(1, 3),
    st.integers(0, 12),
    st.lists(st.one_of(submits, submits, releases, cancels), max_size=60),
)
def test_whatever_happens_slots_limit_order_and_fairness_hold(
    slots: int, limit: int, commands: list[tuple[str, int] | tuple[str, int, str]]
) -> None:
    run = Run(AdmissionQueue(slots=slots, limit=limit))
    for name, *values in commands:
        getattr(run, name)(*values)
        run.check()
    while run.running:
        run.release(0)
        run.check()
    assert run.waiting == []


def test_requests_for_a_loaded_model_pass_those_that_need_a_load_within_a_bound() -> None:
    queue = queue_with_a_runner()
    queue.submit(Ticket(1, model="other"))
    for number in range(2, 2 + 2 * MAX_LOAD_OVERTAKES):
        queue.submit(Ticket(number, model="loaded"))
    order: list[int] = []
    running = 0
    while started := queue.release(running, loaded={"loaded"}):
        running = started[0].id
        order.append(running)
    passed = order.index(1)
    assert passed == MAX_LOAD_OVERTAKES
    assert order[:passed] == list(range(2, 2 + MAX_LOAD_OVERTAKES)), "first come, first served among themselves"


@pytest.mark.parametrize("loaded", [{"a", "b"}, set()])
def test_nobody_passes_where_all_models_are_loaded_or_none(loaded: set[str]) -> None:
    queue = queue_with_a_runner()
    for number in range(1, 6):
        queue.submit(Ticket(number, model="ab"[number % 2]))
    order: list[int] = []
    running = 0
    while started := queue.release(running, loaded=loaded):
        running = started[0].id
        order.append(running)
    assert order == [1, 2, 3, 4, 5]


def test_a_warm_request_at_the_head_is_not_passed_by_one_whose_model_is_loaded() -> None:
    queue = queue_with_a_runner()
    queue.submit(Ticket(1, conversation="warm", model="other"))
    queue.submit(Ticket(2, model="loaded"))
    assert [ticket.id for ticket in queue.release(0, loaded={"loaded"})] == [1]
