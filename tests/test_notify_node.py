"""A node as a service manager sees it: ready, alive, stopping."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support import StartNode

pytestmark = pytest.mark.slow

WATCHDOG_USEC = 400_000


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    # A short folder: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{folder}/notify")
        sock.settimeout(30)
        yield sock


def wait_for(manager: socket.socket, line: str) -> None:
    """Read messages until one holds `line`; fails by the socket's timeout."""
    while line not in manager.recv(4096).decode().split("\n"):
        pass


def test_a_node_says_that_it_is_ready_that_it_lives_and_that_it_ends(
    start_node: StartNode, manager: socket.socket
) -> None:
    path = manager.getsockname()
    node = start_node(
        "--inference-engine", "dummy", env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": str(WATCHDOG_USEC)}, ready=False
    )
    wait_for(manager, "READY=1")
    assert httpx2.get(f"{node.url}/healthcheck", trust_env=False).status_code == httpx2.codes.OK
    for _ in range(3):
        wait_for(manager, "WATCHDOG=1")
    assert node.stop() == 0
    wait_for(manager, "STOPPING=1")


def test_a_worker_does_not_get_the_variables_of_the_service_manager(
    start_node: StartNode, manager: socket.socket, model_store: Path
) -> None:
    node = start_node("--models-dir", str(model_store), env={"NOTIFY_SOCKET": manager.getsockname()})
    assert node.chat("Hi", max_tokens=1).status_code == httpx2.codes.OK
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text(encoding="ascii").split()
    assert children
    for child in children:
        assert not re.search(rb"NOTIFY_SOCKET|WATCHDOG_", Path(f"/proc/{child}/environ").read_bytes())
