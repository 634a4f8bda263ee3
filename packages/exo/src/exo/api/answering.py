"""Sending an answer, streamed or whole, in whatever shape a dialect's writer gives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import ClassVar, Protocol

from starlette.types import Message, Receive, Scope, Send

from exo.api.errors import status_of
from exo.api.exchange import (
    JSON_TYPE,
    ROUTE_HEADER,
    SAMPLING_HEADER,
    Exchange,
    body_message,
    cancelled_when_gone,
    exchange_of,
    route_text,
    sampling_text,
    start_message,
    whole_messages,
)
from exo.api.settings import HttpSettings
from exo.inference import Answer
from exo.inference.choice import ModelChoice
from exo.types import ChatRequest, CompletionRequest, Delta, ExoError, Usage

EVENT_STREAM = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
prompts = logging.getLogger("exo.prompts")


class StreamWriter(Protocol):
    """Makes the bytes of a stream. `first` and `delta` may return nothing; `error` ends it in place of `last`."""

    content_type: ClassVar[bytes]

    def first(self) -> bytes: ...
    def delta(self, delta: Delta) -> bytes: ...
    def last(self, answer: Answer) -> bytes: ...
    def error(self, error: ExoError) -> bytes: ...


class WholeWriter(Protocol):
    """Gathers deltas and makes one JSON body of them, or of an error that came after the status was sent."""

    def add(self, delta: Delta) -> None: ...
    def body(self, answer: Answer) -> bytes: ...
    def error(self, error: ExoError) -> bytes: ...


Deliver = Callable[[Answer], Awaitable[list[Message]]]


async def answer_request(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    ask: Callable[[], Awaitable[Answer]],
    deliver: Deliver,
) -> None:
    """Ask for an answer, deliver it, and note on the exchange what came of it; a client that goes away cancels it.

    `deliver` is what `streamed` or `whole` return, or `send_stream` or `send_whole` with all but the answer given. The
    body must have been read before.
    """
    exchange = exchange_of(scope)
    async with cancelled_when_gone(receive):
        answer = await ask()
        exchange.model = answer.model or exchange.model
        if answer.choice is not None:
            note_choice(exchange, answer.choice)
        if answer.sampling is not None:
            exchange.extra_headers.append((SAMPLING_HEADER, sampling_text(answer.sampling)))
        try:
            last = await deliver(answer)
        finally:
            await answer.aclose()
            _note(exchange, answer)
    for message in last:
        await send(message)


def streamed(send: Send, exchange: Exchange, make: Callable[[Answer], StreamWriter]) -> Deliver:
    """What delivers a stream; `make` is called once it is known which model answers."""

    async def deliver(answer: Answer) -> list[Message]:
        return await send_stream(send, answer, make(answer), exchange)

    return deliver


def whole(send: Send, exchange: Exchange, make: Callable[[Answer], WholeWriter], *, heartbeat: float) -> Deliver:
    """What delivers one JSON object; `make` as for `streamed`."""

    async def deliver(answer: Answer) -> list[Message]:
        return await send_whole(send, answer, make(answer), exchange, heartbeat=heartbeat)

    return deliver


async def send_stream(send: Send, answer: Answer, writer: StreamWriter, exchange: Exchange) -> list[Message]:
    """Each delta is handed to the socket at once. Returns what is to be sent at the very end."""
    await send(stream_start(writer.content_type))
    await _send_some(send, writer.first())
    try:
        async for delta in answer:
            await _send_some(send, writer.delta(delta))
    except ExoError as error:
        note_late(exchange, error)
        return [body_message(writer.error(error), more=False)]
    return [body_message(writer.last(answer), more=False)]


async def send_whole(
    send: Send, answer: Answer, writer: WholeWriter, exchange: Exchange, *, heartbeat: float
) -> list[Message]:
    """One JSON object. Returns what is to be sent at the very end."""
    return await send_late(send, _gathered(answer, writer), writer.error, exchange, heartbeat=heartbeat)


async def send_late(
    send: Send,
    making: Coroutine[None, None, bytes],
    error_body: Callable[[ExoError], bytes],
    exchange: Exchange,
    *,
    heartbeat: float,
) -> list[Message]:
    """The JSON that `making` returns. One that takes long begins with white space, so that no proxy gives it up.

    Raises what `making` raises, as long as nothing was sent. Returns what is to be sent at the very end.
    """
    begun = False
    made = asyncio.create_task(making, name="make an answer")
    try:
        while not (await asyncio.wait({made}, timeout=heartbeat))[0]:
            if not begun:
                await send(start_message(200, JSON_TYPE))
                begun = True
            await send(body_message(b" ", more=True))
    finally:
        made.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExoError):
            await made
    if not begun:
        return whole_messages(200, made.result(), JSON_TYPE)
    try:
        body = made.result()
    except ExoError as error:
        note_late(exchange, error)
        body = error_body(error)
    return [body_message(body, more=False)]


def stream_start(content_type: bytes) -> Message:
    return start_message(200, content_type, *_STREAM_HEADERS)


def note_late(exchange: Exchange, error: ExoError) -> None:
    """The client has seen status 200; log and metrics tell how it ended."""
    exchange.error = error.code
    exchange.status = status_of(error)


def note_choice(exchange: Exchange, choice: ModelChoice) -> None:
    """The client is told which model answers, and why."""
    exchange.rule = choice.rule
    exchange.extra_headers.append((ROUTE_HEADER, route_text(choice)))


def log_prompt(request: ChatRequest | CompletionRequest, settings: HttpSettings) -> None:
    """What somebody asks, if whoever runs the node wants to have it in the log."""
    if settings.log_prompts:
        if isinstance(request, ChatRequest):
            text = [f"{message.role}: {message.content}" for message in request.messages]
        else:
            text = [request.prompt]
        prompts.info("prompt", extra={"fields": {"id": request.id, "messages": text}})


async def _send_some(send: Send, data: bytes) -> None:
    if data:
        await send(body_message(data, more=True))


async def _gathered(answer: Answer, writer: WholeWriter) -> bytes:
    async for delta in answer:
        writer.add(delta)
    return writer.body(answer)


def _note(exchange: Exchange, answer: Answer) -> None:
    exchange.usage = answer.usage if answer.finished else Usage(completion_tokens=answer.completion_tokens)
    if answer.first_token is not None:
        exchange.first_token = answer.first_token - exchange.started
