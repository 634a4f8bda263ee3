"""A pull or a create, told step by step or whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.types import Message, Send

from exo.api.answering import NDJSON, note_late, send_late, stream_start
from exo.api.errors import plain_error
from exo.api.exchange import Exchange, body_message
from exo.api.ollama.answer import encode
from exo.api.ollama.schema import ProgressLine
from exo.models import Progress, Report
from exo.types import ExoError

SUCCESS = ProgressLine(status="success")
Work = Callable[[Report], Awaitable[object]]


class Steps:
    """Takes steps from any thread and hands them out in the event loop; the thread never waits.

    A step of the same status and file replaces one that was not handed out yet, and one that tells nothing new is left
    out, so a slow client costs no memory.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Progress] = deque()
        self._newest: Progress | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def report(self, step: Progress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._take, step)

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while self._waiting or not self._ended:
            if self._waiting:
                yield self._waiting.popleft()
            else:
                self._changed.clear()
                await self._changed.wait()

    def _take(self, step: Progress) -> None:
        if step == self._newest or step.status == SUCCESS.status:  # that it succeeded is told at the very end
            return
        if self._waiting and (self._waiting[-1].status, self._waiting[-1].file) == (step.status, step.file):
            self._waiting.pop()
        self._newest = step
        self._waiting.append(step)
        self._changed.set()


async def send_steps(send: Send, work: Work, exchange: Exchange) -> list[Message]:
    """A line for each step of `work`. Raises what `work` raises before its first step.

    Returns what is to be sent at the very end.
    """
    steps = Steps()
    working = asyncio.ensure_future(work(steps.report))
    working.add_done_callback(lambda _: steps.end())
    begun = False
    try:
        async for step in steps:
            if not begun:
                await send(stream_start(NDJSON))
                begun = True
            await send(body_message(line_of(step), more=True))
        await working
    except ExoError as error:
        if not begun:
            raise
        note_late(exchange, error)
        return [body_message(encode(plain_error(error)) + b"\n", more=False)]
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    last = body_message(encode(SUCCESS) + b"\n", more=False)
    return [last] if begun else [stream_start(NDJSON), last]


async def send_outcome(send: Send, work: Work, exchange: Exchange, *, heartbeat: float) -> list[Message]:
    """One object at the end of `work`; otherwise as `send_steps`."""

    async def making() -> bytes:
        await work(lambda _: None)
        return encode(SUCCESS)

    return await send_late(send, making(), _error_body, exchange, heartbeat=heartbeat)


def line_of(step: Progress) -> bytes:
    """A step as Ollama writes it; a file's name stands where Ollama has the digest of a layer."""
    line = ProgressLine(
        status=step.status,
        digest=step.file or msgspec.UNSET,
        total=msgspec.UNSET if step.total is None else step.total,
        completed=msgspec.UNSET if step.completed is None else step.completed,
    )
    return encode(line) + b"\n"


def _error_body(error: ExoError) -> bytes:
    return encode(plain_error(error))
