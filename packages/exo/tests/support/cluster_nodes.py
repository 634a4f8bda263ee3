"""Nodes with a cluster's secret, and strangers that would like to be taken for one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from scripted_server import Running, running

from exo.api import HttpSettings
from exo.cluster.membership.member import Member, MemberSettings
from exo.inference import InferenceService

SECRET = b"0123456789abcdef0123456789abcdef"
Answer = Callable[[bytes], Awaitable[bytes]]
"""From the body of a request to the bytes of the whole answer, head included."""


def member_node(
    name: str = "real",
    *,
    secret: bytes | None = SECRET,
    host: str = "127.0.0.1",
    addresses: Callable[[], tuple[str, ...]] | None = None,
) -> AbstractAsyncContextManager[Running]:
    """A node of the cluster. With `addresses` it is announced at these."""
    settings = MemberSettings(name, secret, addresses=addresses)
    return running(
        settings=HttpSettings(host=host, port=0, grace=0.2), make_member=functools.partial(_member, settings=settings)
    )


def _member(service: InferenceService, port: int, settings: MemberSettings) -> Member:
    return Member(service, MemberSettings(settings.name, settings.secret, port, settings.addresses))


@contextlib.asynccontextmanager
async def stranger(answer: Answer, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A server that answers every request by `answer`; its port."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(await answer(body))
                await writer.drain()
        finally:
            writer.close()
            serving.discard(task)

    server = await asyncio.start_server(serve, address, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        tasks = list(serving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answered(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), b"connection: close", *headers]
    return b"\r\n".join([*head, b"", body])
