"""The fixtures of all suites. `make test-system` runs them, by tests/clients/test_clients.py."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clients.suites.server import VARIABLE, Leaves, Server, wait_until

SERVERS = [Server(**fields) for fields in json.loads(os.environ[VARIABLE])]


@pytest.fixture(scope="session", params=SERVERS, ids=lambda server: server.name)
def server(request: pytest.FixtureRequest) -> Server:
    """Each node in turn."""
    found: Server = request.param
    return found


@pytest.fixture
def leaves(server: Server) -> Leaves:
    """A block at whose end the node has noticed that its client has left, and has ended the work."""

    @contextmanager
    def block() -> Iterator[None]:
        before = server.aborted()
        yield
        wait_until(lambda: server.aborted() == before + 1, "a request that was given up")
        wait_until(server.is_free, "a free node")

    return block
