from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.chat import ReasoningSplitter
from exo.types import ThinkingMarkers

THINK = ThinkingMarkers()
PARTS = ["<think>", "</think>", "<", "</", "think>", "<thin", "k>", " ", "\n", "\n\n", "a", "Hello", "é", "  b ", ">"]


def split(pieces: list[str], markers: ThinkingMarkers = THINK, *, inside: bool = False) -> tuple[str, str]:
    machine = ReasoningSplitter(markers, inside=inside)
    out = [*map(machine.feed, pieces), machine.flush()]
    return "".join(reasoning for reasoning, _ in out), "".join(answer for _, answer in out)


def reference(text: str, *, inside: bool) -> tuple[str, str]:
    """The whole text at once, for the usual markers."""
    reasoning, answer, fresh = "", "", inside
    while True:
        if fresh:
            text = text.lstrip()
            if inside and text.startswith("<think>"):
                text = text.removeprefix("<think>")
                continue
        opened, closed = (text.find(marker) if marker in text else len(text) for marker in ("<think>", "</think>"))
        if inside:
            before, _, rest = text.partition("</think>")
            reasoning += before.rstrip() if closed < len(text) else before
            text, inside, fresh = rest, False, True
        else:
            end = min(opened, closed)
            answer += text[:end]
            if end == len(text):
                return reasoning, answer
            inside, fresh = opened < closed, True
            text = text[end + len("<think>" if inside else "</think>") :]


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """A text in pieces, empty ones too."""
    text = "".join(draw(st.lists(st.sampled_from(PARTS), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


@given(cut_texts(), st.booleans())
def test_any_cutting_gives_what_the_whole_text_gives(pieces: list[str], inside: bool) -> None:  # noqa: FBT001 - drawn
    assert split(pieces, inside=inside) == reference("".join(pieces), inside=inside)


marker_texts = st.text("ab<", max_size=3)


@given(st.text("ab< ", max_size=14), marker_texts, marker_texts, st.booleans())
def test_any_markers_are_found_however_the_text_is_cut(text: str, start: str, end: str, inside: bool) -> None:  # noqa: FBT001 - drawn
    markers = ThinkingMarkers(open=start, close=end)
    assert split(list(text), markers, inside=inside) == split([text], markers, inside=inside)


@given(cut_texts(), st.booleans())
def test_no_part_of_a_marker_gets_out_before_the_rest_is_known(pieces: list[str], inside: bool) -> None:  # noqa: FBT001 - drawn
    machine = ReasoningSplitter(THINK, inside=inside)
    seen = ["", ""]
    for count, piece in enumerate(pieces, 1):
        for side, text in enumerate(machine.feed(piece)):
            seen[side] += text
        for ending in ("", "<think>x", "</think>x", " \n</think>\n x"):
            whole = split([*pieces[:count], ending], inside=inside)
            assert [text.startswith(begun) for text, begun in zip(whole, seen)] == [True, True]


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("Hello", False, ("", "Hello")),
        ("Hello", True, ("Hello", "")),
        ("<think>\nHm.\n</think>\n\nHello\n", False, ("Hm.", "Hello\n")),
        ("Hm.\n</think>\n\nHello", True, ("Hm.", "Hello")),
        ("\n<think>\nHm.\n</think>Hello", True, ("Hm.", "Hello")),
        ("<think>\n\n</think>\n\nHello", False, ("", "Hello")),
        ("<think>a</think> x <think> b</think> y", False, ("ab", "x y")),
        ("Hm. </think>\n Hello", False, ("", "Hm. Hello")),
        ("<think>one <think> two</think>x", False, ("one <think> two", "x")),
        ("<think>never closed \n", False, ("never closed \n", "")),
        ("a < b <thin", False, ("", "a < b <thin")),
        ("a <b></b> c </think", True, ("a <b></b> c </think", "")),
        ("  two blanks", False, ("", "  two blanks")),
    ],
)
def test_what_becomes_of_a_text(text: str, inside: bool, expected: tuple[str, str]) -> None:  # noqa: FBT001 - parametrized
    assert split([text], inside=inside) == expected
    assert split(list(text), inside=inside) == expected


def test_pieces_leave_as_early_as_they_can() -> None:
    machine = ReasoningSplitter(THINK)
    pieces = ["<th", "ink>", "\n", "Hm", " ", "ok", "\n", "</th", "ink>", "\n\n", "Hi", " there", " <", "b>"]
    out = [("", ""), ("", ""), ("", ""), ("Hm", ""), ("", ""), (" ok", ""), ("", ""), ("", ""), ("", ""), ("", "")]
    out += [("", "Hi"), ("", " there"), ("", " "), ("", "<b>")]
    assert [machine.feed(piece) for piece in pieces] == out
    assert machine.flush() == ("", "")


def test_it_tells_on_which_side_it_is() -> None:
    machine = ReasoningSplitter(THINK)
    seen = []
    for piece in ("<think", ">", "a", "</think>", "b"):
        machine.feed(piece)
        seen.append(machine.inside)
    assert seen == [False, True, True, False, False]
