"""Clients that take an answer, or give a request, byte by byte. Raw sockets on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from openai_engine import OpenAIEngine
from scripted_server import CHAT, Running, running, until

from exo.api import HttpSettings

PIECE = "x" * 20_000
MESSAGES = [{"role": "user", "content": "hi"}]
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "stream": True},
    "/v1/completions": {"prompt": "hi", "stream": True},
    "/v1/responses": {"input": "hi", "stream": True},
    "/v1/messages": {"model": "one", "messages": MESSAGES, "max_tokens": 9, "stream": True},
    "/api/chat": {"model": "one", "messages": MESSAGES},
    "/api/generate": {"model": "one", "prompt": "hi"},
}


def request(path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


@contextlib.asynccontextmanager
async def narrow(node: Running) -> AsyncIterator[socket.socket]:
    """A connection whose two ends hold a few kilobytes, so that what the client leaves is left in the node."""
    loop = asyncio.get_running_loop()
    before = set(node.server.server_state.connections)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", node.port))
        await until(lambda: set(node.server.server_state.connections) - before)
        (connection,) = set(node.server.server_state.connections) - before
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        yield client


def waiting(node: Running) -> int:
    """Bytes that the node holds for clients."""
    return sum(found.transport.get_write_buffer_size() for found in node.server.server_state.connections)


async def drip(node: Running, client: socket.socket, until_ended: Callable[[], bool]) -> int:
    """Take one byte after the other; returns the most bytes that the node has held meanwhile."""
    most = 0
    with contextlib.suppress(ConnectionError):
        while not until_ended():
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 5)
            most = max(most, waiting(node))
    return most


@pytest.mark.parametrize("path", STREAMS)
async def test_a_client_that_takes_byte_by_byte_loses_its_slot_and_costs_no_memory(path: str) -> None:
    engine = OpenAIEngine([PIECE] * 100_000, slots=1)
    async with running(engine, HttpSettings(port=0, grace=0.2, write_timeout=0.3)) as node, narrow(node) as client:
        await asyncio.get_running_loop().sock_sendall(client, request(path, STREAMS[path]))
        await until(lambda: node.sample("exo_requests_in_progress") == 1)
        most = await drip(node, client, lambda: node.sample("exo_requests_in_progress") == 0)
        await until(lambda: node.sample("exo_requests_in_progress") == 0)
        assert len(PIECE) / 2 < most < 4 * len(PIECE)
        engine.script = ["Hello"]
        async with httpx2.AsyncClient(base_url=node.url) as other:
            assert (await other.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_an_answer_that_is_complete_but_not_taken_holds_no_connection() -> None:
    settings = HttpSettings(port=0, grace=0.2, write_timeout=0.1, idle_timeout=0.1)
    async with running(OpenAIEngine([PIECE]), settings) as node, narrow(node) as client:
        await asyncio.get_running_loop().sock_sendall(client, request("/v1/chat/completions", CHAT))
        await until(lambda: node.sample("exo_requests_total", {"model": "one", "status": "200"}) == 1)
        assert waiting(node) > 0
        await until(lambda: not node.server.server_state.connections)


async def test_a_client_that_takes_its_time_but_takes_all_gets_all() -> None:
    async with running(OpenAIEngine([PIECE]), HttpSettings(port=0, grace=0.2)) as node, narrow(node) as client:
        await asyncio.get_running_loop().sock_sendall(client, request("/v1/chat/completions", CHAT))
        await until(lambda: waiting(node) > 0)
        received = b""
        while not received.endswith(b"}}"):
            received += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 5)
        assert PIECE.encode() in received


@pytest.mark.parametrize("path", STREAMS)
async def test_a_body_that_comes_byte_by_byte_gets_408_and_takes_no_slot(path: str) -> None:
    settings = HttpSettings(port=0, grace=0.2, body_timeout=0.3)
    async with running(OpenAIEngine(slots=1), settings) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        data = request(path, STREAMS[path] | {"unknown": "x" * 100_000})
        writer.write(data[:200])
        dripping = asyncio.create_task(_write_slowly(writer, data[200:]))
        async with httpx2.AsyncClient(base_url=node.url) as other:
            assert (await other.post("/v1/chat/completions", json=CHAT)).status_code == 200
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        dripping.cancel()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert len(node.engine.requests) == 1


async def test_headers_that_come_byte_by_byte_are_cut_off() -> None:
    async with running(settings=HttpSettings(port=0, header_timeout=0.2)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        dripping = asyncio.create_task(_write_slowly(writer, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000))
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        dripping.cancel()
        writer.close()
        await until(lambda: not node.server.server_state.connections)


async def _write_slowly(writer: asyncio.StreamWriter, data: bytes) -> None:
    for number in range(len(data)):
        writer.write(data[number : number + 1])
        await asyncio.sleep(0.005)
