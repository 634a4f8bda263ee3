"""One HTTP exchange: reading the body, answering in JSON, noticing that the client is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import Message, Receive, Scope, Send

from exo.api.errors import ErrorShape, headers_of, status_of
from exo.api.settings import HttpSettings
from exo.inference.cancellation import take_back_cancellation
from exo.inference.choice import ModelChoice
from exo.types import BodyTimeout, BodyTooLarge, ExoError, Sampling, Usage

JSON_TYPE = b"application/json"
SAMPLING_HEADER = b"x-exo-sampling"
"""Names the values in force where the runtime does not let a request choose them."""
ROUTE_HEADER = b"x-exo-route"
"""Which model the node chose for a request to `auto`, and why."""


class ClientGone(Exception):
    """The client closed the connection before the answer was complete."""


@dataclass
class Exchange:
    """What is known of a request; the log line and the metrics are made of it at the end.

    `model` is set only to the id of a served model, never to what a client sent; where the node chooses it, once it
    has, and `rule` is then the name of what decided. `error` is the code of an error that came after the status was
    sent. `extra_headers` go with whatever is answered.
    """

    id: str
    started: float
    model: str = ""
    rule: str = ""
    inference: bool = False
    status: int = 0
    error: str = ""
    key: str = ""
    usage: Usage | None = None
    first_token: float | None = None
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def exchange_of(scope: Scope) -> Exchange:
    found: Exchange = scope["exo.exchange"]
    return found


async def read_body(scope: Scope, receive: Receive, settings: HttpSettings, longest: int | None = None) -> bytes:
    """The whole body, of at most `longest` bytes where the path has a limit of its own.

    Raises BodyTooLarge, BodyTimeout, ClientGone.
    """
    if longest is None or longest > settings.max_body:
        too_large = BodyTooLarge(settings.max_body, f"{settings.prefix}MAX_BODY")
    else:
        too_large = BodyTooLarge(longest, "")
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > too_large.limit:
            raise too_large
    try:
        return await asyncio.wait_for(_collect(receive, too_large), settings.body_timeout)
    except asyncio.TimeoutError:
        raise BodyTimeout(settings.body_timeout) from None


async def _collect(receive: Receive, too_large: BodyTooLarge) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > too_large.limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


@contextlib.asynccontextmanager
async def cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client closes the connection, and raises ClientGone.

    The body must have been read before; the last message must be sent after the block, since a complete response counts
    as closed.
    """
    owner = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if owner is not None:
            owner.cancel()

    watcher = asyncio.create_task(watch(), name="client watch")
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            take_back_cancellation()
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


def sampling_text(sampling: Sampling) -> bytes:
    """For SAMPLING_HEADER: `temperature=0.8, top_k=40`; `default` stands for what the runtime itself chooses."""
    values = msgspec.structs.asdict(sampling).items()
    return ", ".join(f"{name}={value:g}" for name, value in values if value is not None).encode() or b"default"


def route_text(choice: ModelChoice) -> bytes:
    """For ROUTE_HEADER, a dictionary as of RFC 9651: `model="m", role=quick, rule=translation, reason="..."`."""
    named = {"model": quoted(choice.model), "role": choice.role, "rule": choice.rule}
    if choice.fallback_from:
        named["fallback-from"] = quoted(choice.fallback_from)
    named["reason"] = quoted(choice.reason)
    return ", ".join(f"{name}={value}" for name, value in named.items()).encode("ascii")


def quoted(text: str) -> str:
    """A string of RFC 9651; what is not ASCII is percent-encoded, as names of models may have it."""
    plain = "".join(one if " " <= one <= "~" else quote(one, errors="replace") for one in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def start_message(status: int, content_type: bytes, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *headers]}


def body_message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def whole_messages(status: int, body: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> list[Message]:
    """The two messages of an answer whose length is known."""
    length = (b"content-length", str(len(body)).encode())
    return [start_message(status, content_type, length, *headers), body_message(body, more=False)]


async def send_bytes(send: Send, status: int, body: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
    for message in whole_messages(status, body, content_type, *headers):
        await send(message)


async def send_json(send: Send, status: int, value: Any, *headers: tuple[bytes, bytes]) -> None:
    await send_bytes(send, status, msgspec.json.encode(value), JSON_TYPE, *headers)


async def send_error(send: Send, error: ExoError, shape: ErrorShape) -> None:
    await send_json(send, status_of(error), shape(error), *headers_of(error))
