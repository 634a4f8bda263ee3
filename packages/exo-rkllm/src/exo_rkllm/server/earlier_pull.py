"""The progress of `/pull` as earlier servers wrote it: lines of text, whole percents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Send

from exo.api.dialect import Exchange, body_message, note_late, start_message
from exo.models import Progress
from exo.types import ExoError

_TEXT = b"text/plain; charset=utf-8"


async def send_pull(send: Send, pull: Callable[..., str], exchange: Exchange) -> list[Message]:
    """Run `pull(report=…)` in a thread and send its steps. What fails before the first byte keeps its status."""
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[Progress] = asyncio.Queue()
    pulling = loop.run_in_executor(
        None, lambda: pull(report=lambda step: loop.call_soon_threadsafe(steps.put_nowait, step))
    )
    pulling.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # a client that left does not ask
    lines, begun = _Lines(), False
    while True:
        waiting: asyncio.Future[Any] = asyncio.ensure_future(steps.get())
        try:
            await asyncio.wait({waiting, pulling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            has_come = not waiting.cancel()
        if not has_come:
            break
        text = lines.of(waiting.result())
        if text:
            if not begun:
                await send(start_message(200, _TEXT))
                begun = True
            await send(body_message(text.encode(), more=True))
    try:
        name = await pulling
    except ExoError as error:
        if not begun:
            raise
        note_late(exchange, error)
        return [body_message(f"Error during download: {error.message}\n".encode(), more=False)]
    start = [] if begun else [start_message(200, _TEXT)]
    return [*start, body_message(f"Download of {name} completed.\n".encode(), more=False)]


class _Lines:
    def __init__(self) -> None:
        self._file = ""
        self._percent = -1

    def of(self, step: Progress) -> str:
        """The line for a step; nothing for one that changes nothing to be seen."""
        if not step.total or step.completed is None:
            return ""
        head = ""
        if step.file != self._file:
            self._file, self._percent = step.file, -1
            head = f"Downloading {step.file} ({step.total / 1e6:.2f} MB)...\n"
        percent = 100 * step.completed // step.total
        if percent == self._percent:
            return head
        self._percent = percent
        return f"{head}{percent}%\n"
