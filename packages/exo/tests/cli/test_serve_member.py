"""What the settings make of a node among others."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path
from typing import Any

import pytest

from exo.cli import settings
from exo.cli.serve import _member_settings
from exo.cli.settings import SERVE_SETTINGS
from exo.cluster.membership import mdns
from exo.types import ConfigurationError

SECRET = "0123456789abcdef0123456789abcdef"


def chosen(**env: str) -> dict[str, Any]:
    return settings.read(SERVE_SETTINGS, argparse.Namespace(), {f"EXO_{name}": value for name, value in env.items()})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
def test_a_node_on_loopback_keeps_away_from_mdns(address: str) -> None:
    assert _member_settings(chosen(), address, 5).addresses is None


def test_a_node_that_others_reach_is_announced_unless_it_is_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exo.cli.serve.own_addresses", lambda listening: (f"of {listening}",))
    for address in ("0.0.0.0", "::", "192.0.2.7"):
        made = _member_settings(chosen(), address, 5)
        assert made.addresses is not None
        assert (made.addresses(), made.port) == ((f"of {address}",), 5)
        assert _member_settings(chosen(NO_ANNOUNCE="yes"), address, 5).addresses is None


def test_a_node_is_called_as_its_host_or_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "rock 5b.lan")
    assert _member_settings(chosen(), "127.0.0.1", 5).name == "rock-5b.lan"
    assert _member_settings(chosen(NODE_NAME="kitchen"), "127.0.0.1", 5).name == "kitchen"


@pytest.mark.parametrize("name", ["-a", "a b", "a/b", "x" * 64])
def test_a_name_that_no_node_may_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="EXO_NODE_NAME: expected 1 to 63 letters"):
        chosen(NODE_NAME=name)


def test_the_secret_is_read_before_anything_is_served(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    assert _member_settings(chosen(CLUSTER_SECRET_FILE=str(file)), "127.0.0.1", 5).secret == SECRET.encode()
    assert _member_settings(chosen(), "127.0.0.1", 5).secret is None
    file.write_text("short")
    with pytest.raises(ConfigurationError, match="shorter than 32"):
        _member_settings(chosen(CLUSTER_SECRET_FILE=str(file)), "127.0.0.1", 5)


@pytest.mark.parametrize(
    ("address", "no_announce", "told"), [("127.0.0.1", "", 1), ("127.0.0.1", "1", 0), ("192.0.2.7", "", 0)]
)
def test_a_secret_on_loopback_is_of_no_use_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str, no_announce: str, told: int
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    env = {"NO_ANNOUNCE": no_announce} if no_announce else {}
    _member_settings(chosen(CLUSTER_SECRET_FILE=str(file), **env), address, 5)
    assert caplog.text.count("announced to nobody: --host 0.0.0.0") == told


def test_own_addresses_is_what_is_called() -> None:
    made = _member_settings(chosen(), "192.0.2.7", 5)
    assert made.addresses is not None
    assert made.addresses() == mdns.own_addresses("192.0.2.7") == ("192.0.2.7",)
