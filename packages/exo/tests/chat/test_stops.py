from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.chat import StopStrings

ALPHABET = "abé"
texts = st.text(ALPHABET, max_size=30)
stop_lists = st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4)


def reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The whole text at once: the first end at which a stop is complete, and the longest of those."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """A text in pieces, empty ones too."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    borders = [0, *cuts, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]


@given(cut_texts(), stop_lists)
def test_any_cutting_gives_what_the_whole_text_gives(pieces: list[str], stops: list[str]) -> None:
    machine = StopStrings(stops)
    released = "".join(map(machine.feed, pieces)) + machine.flush()
    assert (released, machine.hit) == reference("".join(pieces), stops)


@given(texts, stop_lists)
def test_nothing_is_released_that_may_yet_be_part_of_a_stop(text: str, stops: list[str]) -> None:
    machine = StopStrings(stops)
    released = ""
    for end in range(1, len(text) + 1):
        released += machine.feed(text[end - 1])
        if machine.hit is not None:
            break
        held = text[len(released) : end]
        begun = [tail for size in range(1, end + 1) if any(s.startswith(tail := text[end - size : end]) for s in stops)]
        assert held == max(begun, key=len, default=""), "exactly the longest beginning of a stop is held back"


@given(texts)
def test_without_stops_everything_passes_at_once(text: str) -> None:
    machine = StopStrings([""])
    assert machine.feed(text) == text
    assert machine.flush() == ""
    assert machine.hit is None


def test_of_stops_complete_at_the_same_character_the_longest_counts() -> None:
    machine = StopStrings(["b", "ab", "xab"])
    assert [machine.feed(char) for char in "12xab"] == ["1", "2", "", "", ""]
    assert machine.hit == "xab"


def test_a_short_stop_inside_a_longer_one_ends_the_text_first() -> None:
    machine = StopStrings(["abcd", "b"])
    assert machine.feed("abcd") == "a"
    assert machine.hit == "b"


def test_after_a_stop_nothing_more_comes() -> None:
    machine = StopStrings(["END"])
    assert machine.feed("answer EN") == "answer "
    assert machine.feed("D more") == ""
    assert machine.feed("more") == ""
    assert machine.flush() == ""
    assert machine.hit == "END"


@pytest.mark.parametrize(("text", "at_once"), [("answer EN", "answer "), ("answer", "answer"), ("E", "")])
def test_flush_gives_back_what_was_held_for_a_stop_that_never_came(text: str, at_once: str) -> None:
    machine = StopStrings(["END"])
    assert machine.feed(text) == at_once
    assert at_once + machine.flush() == text
    assert machine.flush() == ""
    assert machine.hit is None
