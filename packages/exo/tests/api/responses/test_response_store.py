"""The store of responses: what it keeps, what goes first, and what its bounds count."""

from __future__ import annotations

import itertools
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.api.responses.schema import InputItem
from exo.api.responses.store import ResponseStore, StoredResponse, Turn, memory_of
from exo.types import Message

_numbers = itertools.count()


def turn(text: str, parent: Turn | None = None) -> Turn:
    return Turn((Message(role="user", content=text), Message(role="assistant", content=f"{text}!")), parent)


def response(turn: Turn, body: bytes = b"{}") -> StoredResponse:
    items = (InputItem(role="user", content=turn.messages[0].content),)
    return StoredResponse(f"resp_{next(_numbers)}", body, items, turn)


def contents(turn: Turn) -> list[str]:
    return [message.content for message in turn.conversation()]


def test_a_conversation_has_the_messages_of_its_turns_and_shares_them() -> None:
    first = turn("a")
    left, right = turn("b", first), turn("c", first)
    assert contents(left) == ["a", "a!", "b", "b!"]
    assert contents(right) == ["a", "a!", "c", "c!"]
    assert left.conversation()[0] is right.conversation()[0]


def test_a_response_belongs_to_its_key() -> None:
    store, stored = ResponseStore(), response(turn("a"))
    store.keep("alice", stored)
    assert store.find("alice", stored.id) is stored
    assert store.find("bob", stored.id) is None
    assert not store.remove("bob", stored.id)
    assert store.remove("alice", stored.id)
    assert store.find("alice", stored.id) is None
    assert (len(store), store.size) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    store = ResponseStore(most=2)
    first, second, third = (response(turn(name)) for name in "abc")
    store.keep("", first)
    store.keep("", second)
    store.find("", first.id)
    store.keep("", third)
    assert [store.find("", stored.id) is not None for stored in (first, second, third)] == [True, False, True]


def test_the_bytes_are_bounded_too() -> None:
    large = "x" * 10_000
    store = ResponseStore(most_bytes=35_000)
    kept = [response(turn(large), b"y" * 1000) for _ in range(3)]
    for stored in kept:
        store.keep("", stored)
    assert [store.find("", stored.id) is not None for stored in kept] == [False, False, True]
    assert 21_000 < store.size < 23_000


def test_a_key_drives_out_its_own_responses_before_those_of_one_that_has_fewer() -> None:
    store = ResponseStore(most=4)
    own = [response(turn("a")) for _ in range(2)]
    for stored in own:
        store.keep("alice", stored)
    others = [response(turn("b")) for _ in range(9)]
    for stored in others:
        store.keep("bob", stored)
    assert all(store.find("alice", stored.id) for stored in own)
    assert [store.find("bob", stored.id) is not None for stored in others] == [False] * 7 + [True] * 2


def test_a_key_drives_out_its_own_responses_before_those_of_one_that_has_less() -> None:
    store = ResponseStore(most_bytes=50_000)
    small = [response(turn("a")) for _ in range(3)]
    for stored in small:
        store.keep("alice", stored)
    large = [response(turn("x" * 10_000)) for _ in range(3)]
    for stored in large:
        store.keep("bob", stored)
    assert all(store.find("alice", stored.id) for stored in small)
    assert [store.find("bob", stored.id) is not None for stored in large] == [False, True, True]


def test_texts_that_a_conversation_shares_count_once() -> None:
    store = ResponseStore()
    latest = turn("x" * 1_000_000)
    store.keep("", response(latest))
    for _ in range(20):
        latest = turn("y", latest)
        store.keep("", response(latest))
    assert len(store) == 21
    assert 2_000_000 < store.size < 2_050_000


def test_a_turn_stays_while_a_later_one_needs_it() -> None:
    store = ResponseStore()
    first = response(turn("x" * 1_000_000))
    second = response(turn("y", first.turn))
    store.keep("", first)
    store.keep("", second)
    assert store.remove("", first.id)
    assert store.size > 2_000_000
    assert store.remove("", second.id)
    assert store.size == 0


def test_a_turn_whose_response_went_during_the_next_run_comes_back_with_it() -> None:
    store = ResponseStore()
    first = response(turn("x" * 1_000_000))
    store.keep("", first)
    store.remove("", first.id)
    second = response(turn("y", first.turn))
    store.keep("", second)
    assert store.size > 2_000_000
    assert contents(second.turn)[0] == "x" * 1_000_000


def test_a_conversation_larger_than_the_store_drives_nobody_out() -> None:
    store = ResponseStore(most_bytes=50_000)
    small, first = response(turn("a")), response(turn("x" * 10_000))
    store.keep("", small)
    store.keep("", first)
    second = response(turn("y" * 20_000, first.turn))
    store.keep("", second)
    assert store.find("", second.id) is None
    assert store.find("", small.id) is small
    assert store.find("", first.id) is first


def test_a_long_conversation_is_read_and_freed_without_deep_recursion() -> None:
    store = ResponseStore(most=1)
    latest = None
    for _ in range(10 * sys.getrecursionlimit()):
        latest = turn("a", latest)
    assert latest is not None
    last = response(latest)
    store.keep("", last)
    assert len(latest.conversation()) == 20 * sys.getrecursionlimit()
    store.keep("", response(turn("b")))
    assert store.size < 5_000


@given(st.lists(st.tuples(st.sampled_from(["keep", "continue", "find", "remove"]), st.integers(0, 9)), max_size=40))
def test_the_size_is_that_of_all_that_can_be_reached(steps: list[tuple[str, int]]) -> None:
    store = ResponseStore(most=5, most_bytes=40_000)
    known: list[StoredResponse] = []
    for what, number in steps:
        chosen = known[number % len(known)] if known else None
        match what:
            case "keep":
                known.append(response(turn("k" * 1000 * number)))
                store.keep("", known[-1])
            case "continue" if chosen:
                known.append(response(turn("c" * 1000 * number, chosen.turn)))
                store.keep("", known[-1])
            case "find" if chosen:
                store.find("", chosen.id)
            case "remove" if chosen:
                store.remove("", chosen.id)
        shelf = store._shelves.get("")
        there = [stored for stored in known if shelf and stored.id in shelf._stored]
        turns = {id(turn): turn for stored in there for turn in stored.turn.back()}
        assert len(there) == len(store) <= 5
        assert store.size == sum(stored.size for stored in there) + sum(turn.size for turn in turns.values()) <= 40_000


class Pair(msgspec.Struct):
    left: object
    right: object


def test_what_is_in_several_places_counts_once() -> None:
    text = "x" * 1000
    assert memory_of([text, text]) == sys.getsizeof(text)
    assert memory_of([Pair(text, [text, (text,)])]) == pytest.approx(1000, abs=300)
    assert memory_of(["\U0001f642" * 1000]) > 4000
    assert memory_of([None]) == 0
