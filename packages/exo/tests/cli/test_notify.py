from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from exo.cli.notify import SERVICE_VARIABLES, ServiceManager

WATCHDOG = {"WATCHDOG_USEC": "30000000"}


class Listener:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def received(self) -> list[str]:
        """All messages so far; a datagram between two local sockets is there once it was sent."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    # A short folder: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory() as folder:
        name = f"{folder}/notify" if request.param == "path" else f"@exo-test-{secrets.token_hex(8)}"
        made = Listener(name)
        with made.socket:
            yield made


def manager(listener: Listener, **env: str) -> ServiceManager:
    return ServiceManager.from_env({"NOTIFY_SOCKET": listener.address, **env})


def test_each_message_as_the_protocol_has_it(listener: Listener) -> None:
    told = manager(listener, **WATCHDOG)
    told.ready()
    told.ready("serves on http://127.0.0.1:52415")
    told.alive()
    told.status("2 models, größer")
    told.stopping()
    assert listener.received() == [
        "READY=1",
        "READY=1\nSTATUS=serves on http://127.0.0.1:52415",
        "WATCHDOG=1",
        "STATUS=2 models, größer",
        "STOPPING=1",
    ]


def test_a_status_cannot_smuggle_a_message(listener: Listener) -> None:
    told = manager(listener)
    told.ready("model\nSTOPPING=1")
    told.status("a\r\nMAINPID=1\0b \udcff")
    assert listener.received() == ["READY=1\nSTATUS=model STOPPING=1", "STATUS=a  MAINPID=1 b  "]


def test_the_watchdog_wants_a_sign_of_life_twice_in_its_time(listener: Listener) -> None:
    told = manager(listener, **WATCHDOG)
    assert told.watchdog_interval == 15.0
    assert manager(listener, WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid())).watchdog_interval == 0.5e-6


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {**WATCHDOG, "WATCHDOG_PID": str(os.getppid())},
        {**WATCHDOG, "WATCHDOG_PID": "none"},
    ],
)
def test_no_sign_of_life_for_a_watchdog_that_watches_nobody_or_another(listener: Listener, env: dict[str, str]) -> None:
    told = manager(listener, **env)
    assert told.watchdog_interval is None
    told.alive()
    assert listener.received() == []


@pytest.mark.parametrize("allowed", ["0", "-5", "1.5", "soon", "²", " 30", "9" * 5000])
def test_a_watchdog_time_that_makes_no_sense_is_logged_and_ignored(
    listener: Listener, allowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = manager(listener, WATCHDOG_USEC=allowed)
    assert told.watchdog_interval is None
    assert "WATCHDOG_USEC" in caplog.text
    told.ready()
    assert listener.received() == ["READY=1"]


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": ""}, WATCHDOG])
def test_without_a_service_manager_nothing_happens(env: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    told = ServiceManager.from_env(env)
    assert told.watchdog_interval is None
    for act in (told.ready, told.alive, told.stopping):
        act()
    told.status("unheard")
    assert caplog.records == []


def test_a_socket_that_is_gone_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = ServiceManager.from_env({"NOTIFY_SOCKET": str(tmp_path / "gone"), **WATCHDOG})
    for act in (told.ready, told.alive, told.alive, told.stopping):
        act()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "READY=1" in caplog.text


def test_a_path_that_is_too_long_is_logged_and_not_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager.from_env({"NOTIFY_SOCKET": f"{tmp_path}/{'n' * 200}"}).ready()
    assert len(caplog.records) == 1


def test_a_socket_of_another_kind_is_named(caplog: pytest.LogCaptureFixture) -> None:
    told = ServiceManager.from_env({"NOTIFY_SOCKET": "vsock:2:1234", **WATCHDOG})
    told.ready()
    assert told.watchdog_interval is None
    assert "vsock:2:1234" in caplog.text
    assert len(caplog.records) == 1


def test_a_manager_that_does_not_read_holds_nobody_up_for_ever(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("exo.cli.notify._TIMEOUT", 0.01)
    told = manager(listener)
    while not caplog.records:  # until the queue of the socket is full
        told.status("x" * 4000)
    assert "timed out" in caplog.text
    listener.received()
    told.stopping()
    assert listener.received() == ["STOPPING=1"]


def test_the_variables_that_children_must_not_have(listener: Listener) -> None:
    assert set(SERVICE_VARIABLES) == {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    env = {"NOTIFY_SOCKET": listener.address, "PATH": "/bin", **WATCHDOG}
    ServiceManager.from_env({name: value for name, value in env.items() if name not in SERVICE_VARIABLES}).ready()
    assert listener.received() == []
