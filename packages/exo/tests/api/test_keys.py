from __future__ import annotations

from pathlib import Path

import pytest

from exo.api.keys import KeyRing, check_name, digest_of, new_key
from exo.types import ConfigurationError


def test_a_key_is_known_by_name() -> None:
    ring = KeyRing({"alice": digest_of("a"), "bob": digest_of("b")})
    assert (ring.name_of("a"), ring.name_of("b"), ring.name_of("c"), ring.name_of("")) == ("alice", "bob", None, None)
    assert ring
    assert not KeyRing()


def test_neither_keys_nor_hashes_are_shown() -> None:
    assert repr(KeyRing({"alice": digest_of("a")})) == "KeyRing(['alice'])"


def test_new_keys_differ_and_are_long() -> None:
    assert new_key() != new_key()
    assert len(new_key()) > 40


def test_a_file_of_hashed_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\nalice:{digest_of('a')}\n  bob:{digest_of('b')}  \n")
    ring = KeyRing.from_file(file).merged(KeyRing.from_plain(["c"]))
    assert [ring.name_of(key) for key in "abc"] == ["alice", "bob", "key1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice", "line 1"),
        ("\nalice:xyz", "line 2"),
        (f"a:{'0' * 64}\na:{'1' * 64}", "twice"),
        (f"a b:{'0' * 64}", "line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        KeyRing.from_file(file)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "#a", "a\n"])
def test_a_name_that_no_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_name(name)


def test_every_other_name_makes_a_line_that_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for name in ("alice", "bob.smith@example", "a#b", "ключ"):
        check_name(name)
        file.write_text(f"{name}:{digest_of('k')}\n", encoding="utf-8")
        assert KeyRing.from_file(file).name_of("k") == name


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        KeyRing.from_file(tmp_path / "absent")


def test_two_keys_of_one_name_and_keys_that_no_header_can_hold_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="key1"):
        KeyRing.from_plain(["a"]).merged(KeyRing({"key1": digest_of("b")}))
    with pytest.raises(ConfigurationError, match="ASCII"):
        KeyRing.from_plain(["schlüssel"])
