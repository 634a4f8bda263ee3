"""What fits into the TXT record of an announcement, and what is made of a stranger's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.membership.announcement import (
    MAX_SLOTS,
    SERVICE_TYPE,
    Announced,
    NodeDescription,
    fitting_name,
    from_txt,
    is_node_name,
    to_txt,
)

NODE = NodeDescription("board-1", "0.1.0", "rkllm", 2, ("qwen2.5-1.5b", "smollm2"))


def read(strings: dict[str, bytes], instance: str = "instance") -> Announced:
    return from_txt({key.encode(): value for key, value in strings.items()}, instance)


def test_the_type_by_which_nodes_are_found() -> None:
    assert SERVICE_TYPE == "_exo._tcp.local."


def test_a_node_is_read_as_it_was_written() -> None:
    written = to_txt(NODE)
    assert written == {
        "name": b"board-1",
        "version": b"0.1.0",
        "engine": b"rkllm",
        "slots": b"2",
        "models": b"qwen2.5-1.5b,smollm2",
    }
    assert read(written) == Announced(NODE)


def test_ids_that_do_not_fit_are_left_out_whole_and_counted() -> None:
    models = tuple(f"{number}-{'x' * 98}" for number in range(5))
    written = to_txt(NodeDescription("n", models=models))
    assert written["models"].decode() == f"{models[0]},{models[1]}"
    assert len(b"models=" + written["models"]) <= 255
    assert written["more"] == b"3"
    assert read(written) == Announced(NodeDescription("n", models=models[:2]), more_models=3)


def test_a_string_is_filled_to_its_last_byte() -> None:
    exact, over = "x" * 248, "y" * 249
    assert to_txt(NodeDescription("n", models=(exact,)))["models"] == exact.encode()
    assert to_txt(NodeDescription("n", models=(over,))) | {"models": b""} == to_txt(NodeDescription("n")) | {
        "more": b"1"
    }


def test_an_id_with_a_comma_is_not_taken_for_two() -> None:
    assert read(to_txt(NodeDescription("n", models=("a,b", "c")))) == Announced(NodeDescription("n", models=("c",)), 1)


def test_a_long_version_is_cut_between_characters() -> None:
    assert len(b"version=" + to_txt(NodeDescription("n", "ü" * 200))["version"]) <= 255


def test_an_announcement_that_tells_nothing() -> None:
    assert from_txt({}, "some host") == Announced(NodeDescription("some-host"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"name", b"\xff\xfe"),
        (b"name", b""),
        (b"name", None),
        (b"name", b"a b"),
        (b"name", b"../etc"),
        (b"name", b"\x1b[2J"),
        (b"name", b"n\n  server evil 192.0.2.1"),
        (b"name", b"x" * 64),
        (b"version", b"\x1b]0;title\x07"),
        (b"version", b"1" * 65),
        (b"version", "\N{RIGHT-TO-LEFT OVERRIDE}".encode()),
        (b"engine", b"\x80"),
        (b"slots", b"-1"),
        (b"slots", b"0"),
        (b"slots", "\N{ARABIC-INDIC DIGIT TWO}".encode()),
        (b"slots", b"1e3"),
        (b"slots", b"9" * 5000),
        (b"models", b",,,"),
        (b"models", b"a\x00b"),
        (b"more", b"-3"),
        (b"more", None),
    ],
)
def test_nonsense_counts_as_not_told(key: bytes, value: bytes | None) -> None:
    assert from_txt({key: value}, "board") == Announced(NodeDescription("board"))


def test_numbers_are_bounded() -> None:
    assert from_txt({b"slots": b"999999"}, "n").node.slots == MAX_SLOTS


@given(
    st.dictionaries(
        st.sampled_from([b"name", b"version", b"engine", b"slots", b"models", b"more"]),
        st.one_of(st.none(), st.binary(max_size=255)),
    ),
    st.text(max_size=80),
)
def test_a_stranger_cannot_make_it_raise_nor_say_what_is_not_printable(
    strings: dict[bytes, bytes | None], instance: str
) -> None:
    node = from_txt(strings, instance).node
    assert is_node_name(node.name)
    assert all(text.isprintable() for text in (node.version, node.engine, *node.models))
    assert 1 <= node.slots <= MAX_SLOTS


@given(st.text())
def test_any_host_name_gives_a_name_that_a_node_may_have(text: str) -> None:
    name = fitting_name(text)
    assert is_node_name(name)
    assert fitting_name(name) == name


@pytest.mark.parametrize("name", ["a", "board-1", "Board_1.lan", "7", "x" * 63])
def test_names_that_a_node_may_have(name: str) -> None:
    assert is_node_name(name)
    assert fitting_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "a b", "a/b", "ü", "a\n", "x" * 64])
def test_names_that_no_node_may_have(name: str) -> None:
    assert not is_node_name(name)
