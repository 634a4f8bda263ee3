"""A server that plays records: what it answers to each path, piece by piece, cuts and pauses are the test's choice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from exo.types import Delta, ExoError

Step = bytes | asyncio.Event | Literal["stay", "cut"]
"""Bytes are written, an event is waited for; `stay` waits for the client to go away, `cut` closes the connection."""

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """One chunk of an HTTP body."""
    return b"%x\r\n%s\r\n" % (len(content), content)


def event(body: object) -> bytes:
    """A server-sent event, in one chunk."""
    text = body if isinstance(body, str) else json.dumps(body)
    return chunk(f"data: {text}\n\n".encode())


def line(body: object) -> bytes:
    """A line of NDJSON, in one chunk."""
    return chunk(f"{json.dumps(body)}\n".encode())


def answer(body: object, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer: JSON, or the bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{fields}\r\n".encode() + content


def said(text: str = "", *, finish: str | None = None, **delta: str) -> bytes:
    """An event of OpenAI's chat."""
    return event({"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}]})


def usage(prompt: int = 9, completion: int = 2, cached: int = 4, reasoning: int = 1) -> bytes:
    """The last event of OpenAI's chat."""
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    return event({"choices": [], "usage": counts})


def openai_chat(*texts: str, finish: str = "stop") -> list[Step]:
    """A whole streamed answer in OpenAI's dialect."""
    return [EVENTS, *(said(text) for text in texts), said(finish=finish), usage(), event("[DONE]"), END]


def ollama_line(text: str = "", **fields: Any) -> bytes:
    """A line of Ollama's chat."""
    return line({"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **fields})


def ollama_end(reason: str = "stop") -> bytes:
    """The last line of Ollama's chat or raw completion."""
    return line(
        {
            "model": "m",
            "done": True,
            "done_reason": reason,
            "load_duration": 2_000_000_000,
            "prompt_eval_count": 9,
            "prompt_eval_duration": 1_500_000_000,
            "eval_count": 2,
            "eval_duration": 500_000_000,
        }
    )


def ollama_chat(*texts: str, reason: str = "stop") -> list[Step]:
    """A whole streamed answer in Ollama's dialect."""
    return [NDJSON, *(ollama_line(text) for text in texts), ollama_end(reason), END]


VERSION = answer({"version": "0.1.0"})
NOT_FOUND = answer(b"<html><body><h1>404 Not Found</h1></body></html>", "404 Not Found")


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class RemoteServer:
    """Plays `routes[path]` for each request; an unknown path is 404. `open` counts connections that are open now."""

    def __init__(self) -> None:
        self.routes: dict[str, Sequence[Step]] = {}
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        """The paths of the requests so far, in their order."""
        return [asked.path for asked in self.asked]

    def body(self, path: str) -> Any:
        """The body of the only request on a path."""
        (asked,) = [asked for asked in self.asked if asked.path == path]
        return asked.body

    def speak_ollama(self, *models: str) -> None:
        """Answer the small questions of Ollama's dialect."""
        tags = [{"name": name, "size": 5, "digest": "sha256:ab", "details": {"family": "qwen2"}} for name in models]
        self.routes |= {"/api/version": [VERSION], "/api/tags": [answer({"models": tags})]}
        self.routes["/api/ps"] = [answer({"models": []})]

    def speak_openai(self, *models: str, owner: str = "llamacpp") -> None:
        """Answer the small questions of OpenAI's dialect."""
        listed = [{"id": name, "object": "model", "owned_by": owner} for name in models]
        self.routes["/v1/models"] = [answer({"object": "list", "data": listed})]

    async def start(self) -> None:
        """Listen; a server that was stopped takes its port again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        self.hang_up()
        await self._idle.wait()

    def hang_up(self) -> None:
        """Close every connection; new ones are still accepted."""
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        self._idle.clear()
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        finally:
            self._open.discard(writer)
            if not self._open:
                self._idle.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in head[1:] if text)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = head[0].split()
        self.asked.append(Asked(method, path, headers, json.loads(content) if content else None))
        for step in self.routes.get(path, [NOT_FOUND]):
            if step == "cut":
                return False
            if step == "stay":
                await reader.read()
                return False
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)
        return True


@contextlib.asynccontextmanager
async def remote_server() -> AsyncIterator[RemoteServer]:
    """A server on a free port of this machine."""
    server = RemoteServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def collect(deltas: AsyncGenerator[Delta, None]) -> list[Delta]:
    """All deltas of an answer."""
    async with contextlib.aclosing(deltas):
        return [delta async for delta in deltas]


async def until_error(deltas: AsyncGenerator[Delta, None]) -> tuple[str, ExoError | None]:
    """The text that came, and how the answer ended."""
    text = ""
    try:
        async with contextlib.aclosing(deltas):
            async for delta in deltas:
                text += delta.text
    except ExoError as error:
        return text, error
    return text, None
