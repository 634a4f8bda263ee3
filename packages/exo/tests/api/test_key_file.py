"""A key file that changes while the node runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from exo.api.key_file import KeyFile
from exo.api.keys import KeyRing, digest_of
from exo.types import ConfigurationError


def lines(*keys: str) -> str:
    """A line for each key, which is its own name."""
    return "".join(f"{key}:{digest_of(key)}\n" for key in keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(lines("alice"))
    return file


def let_in(keys: KeyFile) -> str:
    """Those of a few keys that count now."""
    return " ".join(key for key in ("alice", "bob", "key") if keys.current().caller_of(key))


def test_keys_come_and_go_with_the_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keys = KeyFile(file, KeyRing.from_plain(["key"]))
    assert let_in(keys) == "alice key"
    with file.open("a") as out:
        out.write(lines("bob"))
    assert let_in(keys) == "alice bob key"
    file.write_text(lines("bob"))
    assert let_in(keys) == "bob key"
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "keys now: 3" in caplog.text


def test_a_file_in_the_place_of_another_is_seen_though_it_has_its_size_and_its_time(file: Path, tmp_path: Path) -> None:
    keys = KeyFile(file)
    before = file.stat()
    fresh = tmp_path / "fresh"
    fresh.write_text(lines("bobby"))
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(file)
    assert file.stat().st_size == before.st_size
    assert keys.current().caller_of("bobby")


def test_a_file_that_has_not_changed_is_not_read_again(file: Path) -> None:
    keys = KeyFile(file)
    assert keys.current() is keys.current()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice:xyz", "keys, line 1: expected name:sha256"),
        (lines("bob") + "\ncarol scope=use", "keys, line 3"),
        (lines("bob", "bob"), "line 2: the name bob is there twice"),
        (lines("key1"), "The name key1 belongs to a key of the environment"),
    ],
)
def test_a_file_with_a_mistake_leaves_the_earlier_keys_and_is_named_once(
    file: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    keys = KeyFile(file, KeyRing.from_plain(["key"]))
    file.write_text(text)
    assert [let_in(keys) for _ in range(3)] == ["alice key"] * 3
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert said in record.getMessage()
    assert "earlier keys stay in force" in record.getMessage()
    file.write_text(lines("bob"))
    assert let_in(keys) == "bob key"


def test_a_file_that_is_gone_leaves_the_earlier_keys(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyFile(file)
    file.unlink()
    assert [let_in(keys) for _ in range(3)] == ["alice"] * 3
    (record,) = caplog.records
    assert f"{file} cannot be read: No such file" in record.getMessage()
    file.write_text(lines("bob"))
    assert let_in(keys) == "bob"


def test_a_file_that_holds_no_key_any_more_lets_nobody_in(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyFile(file)
    file.write_text("# none\n")
    assert let_in(keys) == ""
    assert keys, "still asked for"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_pipe_is_read_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, lines("alice").encode())
    os.close(writing)
    keys = KeyFile(Path(f"/dev/fd/{reading}"))
    assert [let_in(keys) for _ in range(2)] == ["alice"] * 2
    os.close(reading)


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyFile(file)
    file.unlink()
    os.mkfifo(file)
    assert [let_in(keys) for _ in range(2)] == ["alice"] * 2
    (record,) = caplog.records
    assert "is no file any more" in record.getMessage()


def test_a_file_that_is_wrong_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        KeyFile(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="there is none"):
        KeyFile(Path("/dev/null"))


def test_no_hash_is_shown(file: Path) -> None:
    assert repr(KeyFile(file)) == f"KeyFile({str(file)!r})"
