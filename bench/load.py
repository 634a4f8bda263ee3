"""The load client: streamed chats and timed GETs over bare sockets, cheap enough to share two cores with a node.

While the load runs it only notes which bytes came when; they are understood afterwards. Run it in a process of its own.
"""

from __future__ import annotations

import asyncio
import http.client
import resource
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True)
class Target:
    """The node under load."""

    host: str
    port: int


@dataclass
class Chat:
    """One streamed chat as it was received. Times are of time.monotonic, which all processes share.

    `times` holds the arrival of each piece of text. `ids` are the ids that its events carried: more than one means that
    answers were mixed up. `problem` is empty for a stream that came to its end. `status` is 0 where no answer began.
    `prompt_tokens` are those of the whole prompt, `cached_tokens` the part of them that was not evaluated again.
    """

    asked: float
    times: array[float] = field(default_factory=lambda: array("d"))
    text: str = ""
    ids: set[str] = field(default_factory=set)
    finish: str | None = None
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ended: float = 0.0
    problem: str = ""
    status: int = 0

    @property
    def gaps(self) -> list[float]:
        """Seconds between two pieces of text."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:])]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    completion_tokens: int
    prompt_tokens: int = 0
    prompt_tokens_details: _PromptDetails = _PromptDetails()


class _Event(msgspec.Struct):
    id: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Event)


class _Receiver(asyncio.Protocol):
    """Sends one request and keeps all that comes back, until the other side closes."""

    def __init__(self, request: bytes, begins: Callable[[], None] | None = None) -> None:
        self.asked = 0.0
        self.lost = 0.0
        self._begins = begins
        self.arrivals: list[tuple[float, bytes]] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.asked = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.arrivals.append((time.monotonic(), data))
        if self._begins is not None and len(self.arrivals) == 1:
            self._begins()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's shape; a cut answer is noticed
        self.lost = time.monotonic()
        if not self.closed.done():
            self.closed.set_result(None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def run_chats(
    target: Target, bodies: Sequence[dict[str, Any]], *, ramp: float = 0.0, seconds: float | None = None
) -> list[Chat]:
    """Open a stream for each body, spread over `ramp` seconds; hang up after `seconds`. Returns when all have ended."""
    _allow_many_connections()
    return [_understand(receiver) for receiver in asyncio.run(_run(target, bodies, ramp, seconds))]


async def one_chat(
    target: Target,
    body: dict[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float | None = None,
    begins: Callable[[], None] | None = None,
) -> Chat:
    """One stream, to its end; hangs up after `seconds`. `begins` is called when an answer begins to come.

    What goes wrong is the chat's `problem`, and `ended` is when that was known; nothing is raised.
    """
    request = _post(target, body, headers or {})
    asked = time.monotonic()
    try:
        _, receiver = await asyncio.get_running_loop().create_connection(
            lambda: _Receiver(request, begins), target.host, target.port
        )
    except OSError as error:
        return Chat(asked, ended=time.monotonic(), problem=f"no connection: {error}")
    try:
        await asyncio.wait([receiver.closed], timeout=seconds)
        chat = _understand(receiver)
        if chat.problem and not receiver.closed.done():
            chat.problem = f"no end within {seconds} seconds"
        if chat.problem:
            chat.ended = receiver.lost or time.monotonic()
        return chat
    finally:
        receiver.abort()


async def _run(target: Target, bodies: Sequence[dict[str, Any]], ramp: float, seconds: float | None) -> list[_Receiver]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    receivers = []
    for number, body in enumerate(bodies):
        await asyncio.sleep(max(0.0, started + number * ramp / len(bodies) - loop.time()))
        request = _post(target, body, {})
        _, receiver = await loop.create_connection(lambda: _Receiver(request), target.host, target.port)  # noqa: B023 - called at once
        receivers.append(receiver)
    await asyncio.wait([receiver.closed for receiver in receivers], timeout=seconds)
    for receiver in receivers:
        receiver.abort()
    return receivers


def _post(target: Target, body: dict[str, Any], headers: Mapping[str, str]) -> bytes:
    content = msgspec.json.encode({"stream": True, "stream_options": {"include_usage": True}, **body})
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {target.host}:{target.port}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def _understand(receiver: _Receiver) -> Chat:
    chat = Chat(receiver.asked)
    if not receiver.arrivals:
        chat.problem = "the connection was closed without an answer"
        return chat
    chat.ended = receiver.arrivals[-1][0]
    raw = b"".join(data for _, data in receiver.arrivals)
    head, _, body = raw.partition(b"\r\n\r\n")
    chat.status = int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0
    if chat.status != http.client.OK:
        chat.problem = raw[:300].decode(errors="replace")
        return chat
    chat.problem = "the stream ended without [DONE]"
    texts: list[str] = []
    for when, data in _timed_events(receiver.arrivals, len(head) + 4, body):
        if data == b"data: [DONE]":
            chat.problem = ""
            break
        event = _decoder.decode(data.removeprefix(b"data: "))
        if event.error is not None:
            chat.problem = f"the stream ended with an error: {event.error}"
            break
        _note(chat, texts, when, event)
    chat.text = "".join(texts)
    return chat


def _note(chat: Chat, texts: list[str], when: float, event: _Event) -> None:
    chat.ids.add(event.id)
    for choice in event.choices:
        if choice.delta.content:
            texts.append(choice.delta.content)
            chat.times.append(when)
        chat.finish = choice.finish_reason or chat.finish
    if event.usage is not None:
        chat.completion_tokens = event.usage.completion_tokens
        chat.prompt_tokens = event.usage.prompt_tokens
        chat.cached_tokens = event.usage.prompt_tokens_details.cached_tokens


def _timed_events(arrivals: Sequence[tuple[float, bytes]], offset: int, body: bytes) -> Iterator[tuple[float, bytes]]:
    """Each server-sent event with the arrival of its last byte."""
    pending = b""
    remaining = iter(arrivals)
    when, data = next(remaining)
    received = len(data)
    for end, piece in _chunks(body):
        while received < offset + end:
            when, data = next(remaining)
            received += len(data)
        *events, pending = (pending + piece).split(b"\n\n")
        for event in events:
            yield when, event


def _chunks(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The pieces of a body in chunked coding, each with the position of its end; stops where the bytes stop."""
    position = 0
    while (line_end := body.find(b"\r\n", position)) >= 0:
        size = int(body[position:line_end], 16)
        end = line_end + 2 + size
        if size == 0 or end > len(body):
            return
        yield end, body[line_end + 2 : end]
        position = end + 2


def time_gets(target: Target, path: str, *, seconds: float, pause: float) -> list[float]:
    """Ask again and again for `seconds`, over one kept connection, `pause` seconds between two.

    Returns the seconds from sending each GET to the last byte of its answer.
    """
    return asyncio.run(_time_gets(target, path, seconds, pause))


async def _time_gets(target: Target, path: str, seconds: float, pause: float) -> list[float]:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    request = f"GET {path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n\r\n".encode()
    took = []
    until = time.monotonic() + seconds
    while (asked := time.monotonic()) < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise ValueError(f"GET {path} was answered with {head[:60]!r}")
        length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
        took.append(time.monotonic() - asked)
        await asyncio.sleep(pause)
    writer.close()
    return took


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
