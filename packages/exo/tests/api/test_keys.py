from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.api.keys import Key, KeyRing, check_name, digest_of, key_of_line, new_key
from exo.inference.caller import Caller
from exo.types import ConfigurationError


def ring_of(**keys: str) -> KeyRing:
    return KeyRing(Key(digest_of(key), Caller(name)) for name, key in keys.items())


def names(ring: KeyRing, *keys: str) -> list[str | None]:
    callers = [ring.caller_of(key) for key in keys]
    return [None if caller is None else caller.name for caller in callers]


def test_a_key_is_known_by_name() -> None:
    ring = ring_of(alice="a", bob="b")
    assert names(ring, "a", "b", "c", "", digest_of("a")) == ["alice", "bob", None, None, None]
    assert ring
    assert not KeyRing()


def test_neither_keys_nor_hashes_are_shown() -> None:
    assert repr(ring_of(alice="a")) == "KeyRing(['alice'])"


def test_every_key_is_compared_in_constant_time_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    ring = ring_of(alice="a", bob="b", carol="c")
    known = [digest_of(key) for key in "abc"]
    for key in ("a", "c", "wrong", ""):
        compared.clear()
        ring.caller_of(key)
        assert compared == [(digest_of(key), other) for other in known]


def test_new_keys_differ_and_are_long() -> None:
    assert new_key() != new_key()
    assert len(new_key()) > 40


def test_a_file_of_hashed_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\nalice:{digest_of('a')}\n  bob:{digest_of('b')}  \n")
    ring = KeyRing.from_file(file).merged(KeyRing.from_plain(["c"]))
    assert names(ring, *"abc") == ["alice", "bob", "key1"]
    assert len(ring) == 3


def test_keys_without_a_scope_and_those_of_the_environment_may_do_everything() -> None:
    """As all keys could before there were scopes."""
    old = key_of_line(f"alice:{digest_of('a')}")
    assert old.caller == Caller("alice", admin=True, requests=None, tokens=None)
    assert KeyRing.from_plain(["c"]).caller_of("c") == Caller("key1", admin=True)


def test_a_line_has_a_scope_and_limits() -> None:
    found = key_of_line(f"bob:{'0' * 64} tokens=60000\trequests=4  scope=use")
    assert found == Key("0" * 64, Caller("bob", admin=False, requests=4, tokens=60000))


@given(
    st.sampled_from(["use", "admin"]),
    st.one_of(st.none(), st.integers(1, 999_999_999_999)),
    st.one_of(st.none(), st.integers(1, 999_999_999_999)),
)
def test_a_line_that_is_written_is_read_as_it_was(scope: str, requests: int | None, tokens: int | None) -> None:
    key = Key(digest_of("k"), Caller("a=b", admin=scope == "admin", requests=requests, tokens=tokens))
    assert key_of_line(key.line()) == key
    assert f"scope={scope}" in key.line(), "a line without a scope means admin"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice", "line 1"),
        ("\nalice:xyz", "line 2"),
        (f"a:{'0' * 64}\na:{'1' * 64}", "twice"),
        (f"a b:{'0' * 64}", "line 1"),
        (f"a:{'0' * 64} scope=use\nb:{'1' * 64} requests=1", "line 2: it has no line end"),
        (f"a:{'0' * 64} scope=use\nb:{'0' * 64}\n", "line 2: the same key is there twice"),
        (f"a:{'0' * 64} scop=use", "line 1: 'scop=use' is no option of a key; there are scope="),
        (f"a:{'0' * 64} use", "line 1: 'use' is no option"),
        (f"a:{'0' * 64}scope=use", "line 1: expected name:sha256"),
        (f"a:{'0' * 64} scope=root", "scope: expected use or admin, got 'root'"),
        (f"a:{'0' * 64} scope=", "'scope=' is no option"),
        (f"a:{'0' * 64} scope=use scope=admin", "scope is there twice"),
        (f"a:{'0' * 64} requests=0", "requests: expected a whole number from 1"),
        (f"a:{'0' * 64} tokens=-5", "tokens: expected"),
        (f"a:{'0' * 64} tokens=1e9", "tokens: expected"),
        (f"a:{'0' * 64} tokens=٣", "tokens: expected"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")
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
        assert names(KeyRing.from_file(file), "k") == [name]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        KeyRing.from_file(tmp_path / "absent")


def test_two_keys_of_one_name_and_keys_that_no_header_can_hold_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="key1"):
        KeyRing.from_plain(["a"]).merged(ring_of(key1="b"))
    with pytest.raises(ConfigurationError, match="ASCII"):
        KeyRing.from_plain(["schlüssel"])
