"""A scripted server, and what talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from remote_server import RemoteServer, remote_server

from exo.inference.remote.link import Link


@pytest.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with remote_server() as found:
        yield found


@pytest.fixture
async def link(server: RemoteServer) -> AsyncIterator[Link]:
    made = Link(server.url, api_key="secret", timeout=10.0)
    yield made
    await made.close()
