"""The secret of a cluster, and the proof that a node knows it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from pathlib import Path

import pytest

from exo.cluster.membership.secret import is_challenge, is_proof, new_challenge, plain_address, proof, read_secret
from exo.types import ConfigurationError

SECRET = b"0123456789abcdef0123456789abcdef"
NODE = {"name": "n1", "version": "1", "engine": "dummy", "slots": 2, "models": ["a", "b"]}


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_what_the_file_holds_without_white_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_secret(written(tmp_path / "s", b"\n " + SECRET + b" \r\n")) == SECRET
    assert caplog.records == []


@pytest.mark.parametrize("content", [b"", b" " * 99, SECRET[:-1], SECRET[:-1] + b"\n", "ü".encode() * 31])
def test_a_short_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="shorter than 32 characters"):
        read_secret(written(tmp_path / "s", content))


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="longer than 4096 bytes"):
        read_secret(Path("/dev/zero"))
    with pytest.raises(ConfigurationError, match="No such file"):
        read_secret(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="directory"):
        read_secret(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_secret(written(tmp_path / "s", SECRET, mode)) == SECRET
    assert "chmod 600" in caplog.text
    assert SECRET.decode() not in caplog.text


def test_the_error_does_not_show_the_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_secret(written(tmp_path / "s", b"too-short-a-secret"))
    assert "too-short" not in raised.value.message.replace(os.fspath(tmp_path), "")


def test_challenges_differ_and_have_their_shape() -> None:
    made = {new_challenge() for _ in range(50)}
    assert len(made) == 50
    assert all(map(is_challenge, made))
    others = ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "\n", "\N{ARABIC-INDIC DIGIT ZERO}" * 64]
    assert not any(map(is_challenge, others))


def test_the_proof_is_an_hmac_of_sorted_json() -> None:
    covered = {"purpose": "exo cluster node", "challenge": "c", "address": "192.0.2.7", "port": 5, "node": NODE}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    expected = hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()
    assert proof(SECRET, "c", "192.0.2.7", 5, NODE) == expected
    assert proof(SECRET, "c", "::ffff:192.0.2.7", 5, dict(reversed(NODE.items()))) == expected
    assert is_proof(expected, expected)


def test_whatever_changes_changes_the_proof() -> None:
    made = [
        proof(SECRET, "c", "192.0.2.7", 5, NODE),
        proof(SECRET + b"x", "c", "192.0.2.7", 5, NODE),
        proof(SECRET, "d", "192.0.2.7", 5, NODE),
        proof(SECRET, "c", "192.0.2.8", 5, NODE),
        proof(SECRET, "c", "192.0.2.7", 6, NODE),
        *(proof(SECRET, "c", "192.0.2.7", 5, NODE | {key: "other"}) for key in NODE),
    ]
    assert len(set(made)) == len(made)
    assert not any(is_proof(made[0], other) for other in made[1:])


@pytest.mark.parametrize("given", ["", "0", "ü" * 64, "0" * 63, "\x00" * 64])
def test_what_is_no_proof_is_none(given: str) -> None:
    assert not is_proof(given, proof(SECRET, "c", "192.0.2.7", 5, NODE))


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::FFFF:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("example.org", "example.org"),
    ],
)
def test_an_address_is_written_in_one_way(address: str, plain: str) -> None:
    assert plain_address(address) == plain
