"""Sending an answer, streamed or whole, in whatever shape a dialect's writer gives it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from starlette.types import Message, Send

from exo.api.errors import status_of
from exo.api.exchange import JSON_TYPE, Exchange, body_message, start_message, whole_messages
from exo.inference import Answer
from exo.types import Delta, ExoError, Usage

EVENT_STREAM = b"text/event-stream; charset=utf-8"
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


class StreamWriter(Protocol):
    """Makes the bytes of a stream. `delta` may return nothing; `error` ends the stream in place of `last`."""

    def first(self) -> bytes: ...
    def delta(self, delta: Delta) -> bytes: ...
    def last(self, usage: Usage) -> bytes: ...
    def error(self, error: ExoError) -> bytes: ...


class WholeWriter(Protocol):
    """Gathers deltas and makes one JSON body of them, or of an error that came after the status was sent."""

    def add(self, delta: Delta) -> None: ...
    def body(self, usage: Usage) -> bytes: ...
    def error(self, error: ExoError) -> bytes: ...


async def send_stream(send: Send, answer: Answer, writer: StreamWriter, exchange: Exchange) -> list[Message]:
    """Server-sent events; each delta is handed to the socket at once. Returns what is to be sent at the very end."""
    await send(start_message(200, EVENT_STREAM, *_STREAM_HEADERS))
    await send(body_message(writer.first(), more=True))
    try:
        async for delta in answer:
            data = writer.delta(delta)
            if data:
                await send(body_message(data, more=True))
    except ExoError as error:
        _note_late(exchange, error)
        return [body_message(writer.error(error), more=False)]
    return [body_message(writer.last(answer.usage), more=False)]


async def send_whole(
    send: Send, answer: Answer, writer: WholeWriter, exchange: Exchange, *, heartbeat: float
) -> list[Message]:
    """One JSON object. An answer that takes long begins with white space, so that no proxy gives it up.

    Returns what is to be sent at the very end.
    """
    begun = False
    gathering = asyncio.create_task(_gather(answer, writer), name="gather answer")
    try:
        while not (await asyncio.wait({gathering}, timeout=heartbeat))[0]:
            if not begun:
                await send(start_message(200, JSON_TYPE))
                begun = True
            await send(body_message(b" ", more=True))
    finally:
        gathering.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExoError):
            await gathering
    if not begun:
        gathering.result()
        return whole_messages(200, writer.body(answer.usage), JSON_TYPE)
    try:
        gathering.result()
        body = writer.body(answer.usage)
    except ExoError as error:
        _note_late(exchange, error)
        body = writer.error(error)
    return [body_message(body, more=False)]


async def _gather(answer: Answer, writer: WholeWriter) -> None:
    async for delta in answer:
        writer.add(delta)


def _note_late(exchange: Exchange, error: ExoError) -> None:
    """The client has seen status 200; log and metrics tell how it ended."""
    exchange.error = error.code
    exchange.status = status_of(error)
