from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.chat.tools.json_scanner import MAX_DEPTH, JsonScanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4)
PIECES = st.sampled_from(
    [*'{}[]:,"\\', '"a"', "1", "-0.5e+3", "01", "true", "nul", " ", "\n", "\\u00e9", "\\x", "é", "'"]
)


def end_of(text: str, *, cut: bool = False) -> tuple[int, bool, str]:
    """Where the object ends or fails, whether it is complete, and its problem; `cut`: one character at a time."""
    scanner = JsonScanner()
    at = 0
    for piece in text if cut else [text]:
        taken = scanner.feed(piece)
        at += taken
        if taken < len(piece):
            break
    return at, scanner.complete, scanner.problem


def is_object(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.text(max_size=5))
def test_the_end_of_any_object_is_found(value: object, indent: int | None, ascii_only: bool, behind: str) -> None:  # noqa: FBT001 - drawn
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert end_of(text + behind) == (len(text), True, "")
    assert end_of(text + behind, cut=True) == (len(text), True, "")


@given(st.lists(PIECES, max_size=14).map("".join))
def test_it_takes_what_a_parser_takes_and_nothing_else(tail: str) -> None:
    text = "{" + tail
    end, complete, problem = end_of(text)
    assert end_of(text, cut=True) == (end, complete, problem)
    assert not (complete and problem)
    if complete:
        assert is_object(text[:end])
    else:
        assert not any(is_object(text[:length]) for length in range(len(text) + 1))
        assert bool(problem) or end == len(text), "it goes on to the end as long as nothing is wrong"


@given(OBJECTS, st.floats(0, 1))
def test_no_beginning_of_an_object_is_refused(value: object, part: float) -> None:
    text = json.dumps(value)
    length = int(part * (len(text) - 1))
    assert end_of(text[:length]) == (length, False, "")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("[1]", 0),
        ('{"a" 1', 5),
        ("{'a'", 1),
        ('{"a": print("x")', 11),
        ('{"a": "b" "c"', 10),
        ('{"a": "two\nlines"', 10),
        ('{"a": "\\q"', 8),
        ('{"a": "\\u00g', 11),
        ('{"a": 01}', 8),
        ('{"a": NaN}', 9),
        ('{"a": 1,}', 8),
        ('{"a": [1,]', 9),
        ('{"a": [1}', 8),
        ('{"a": ]', 6),
        ('{,"a"', 1),
    ],
)
def test_it_ends_where_the_text_can_be_no_object(text: str, end: int) -> None:
    assert end_of(text) == (end, False, "The call is not valid JSON.")
    assert end_of(text, cut=True) == (end, False, "The call is not valid JSON.")


def test_the_depth_is_bounded() -> None:
    deepest = '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    assert end_of(deepest) == (len(deepest), True, "")
    deeper = '{"a":' + "[" * MAX_DEPTH
    assert end_of(deeper) == (len(deeper) - 1, False, f"The call is nested more than {MAX_DEPTH} deep.")


def test_the_keys_are_those_of_the_object_itself() -> None:
    scanner = JsonScanner()
    scanner.feed('{"a": {"b": ["c"]}, "d\\u0065\\n": "e", "f')
    assert scanner.keys == ["a", "d\\u0065\\n"]


def test_a_foreign_key_ends_it_with_its_last_character() -> None:
    scanner = JsonScanner(only=["name"])
    assert scanner.feed('{"name": {"age": 1}, "age": 2}') == len('{"name": {"age": 1}, "age"')
    assert scanner.problem == "The object has other keys than a call."
