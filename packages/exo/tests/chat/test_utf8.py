from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.chat import Utf8Joiner

valid = st.text().map(str.encode)
bytes_of_any_kind = st.lists(st.one_of(valid, st.binary(max_size=4)), max_size=6).map(b"".join)


@given(bytes_of_any_kind, st.data())
def test_any_cutting_gives_what_the_whole_gives(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    joiner = Utf8Joiner()
    pieces = [joiner.feed(data[start:end]) for start, end in itertools.pairwise([0, *cuts, len(data)])]
    assert "".join(pieces) + joiner.flush() == data.decode(errors="replace")


@given(st.text())
def test_a_character_comes_with_its_last_byte(text: str) -> None:
    joiner = Utf8Joiner()
    for char in text:
        *begun, last = char.encode()
        assert [joiner.feed(bytes([byte])) for byte in begun] == [""] * len(begun)
        assert joiner.feed(bytes([last])) == char


@pytest.mark.parametrize("unfinished", [b"\xe2", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3"])
def test_an_unfinished_character_at_the_end_becomes_one_mark(unfinished: bytes) -> None:
    joiner = Utf8Joiner()
    assert joiner.feed(b"ok" + unfinished) == "ok"
    assert joiner.flush() == "\N{REPLACEMENT CHARACTER}"
    assert joiner.flush() == ""
