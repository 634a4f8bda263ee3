"""One accepted request: from the queue to its last delta."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from exo.inference.cancellation import take_back_cancellation
from exo.inference.choice import ModelChoice
from exo.types import AnswerNotValid, DeadlineExceeded, Delta, ExoError, Sampling, Timings, Usage


class Answer:
    """An async iterator over the deltas of one request, which can be aborted from outside.

    Call `begin` first: it returns once the run has begun, and raises every refusal. Then iterate; `aclose` at the end.
    `model` is the id of the one that answers, `choice` how that came about where the request left it open.
    """

    def __init__(
        self, deltas: AsyncGenerator[Delta, None], *, on_end: Callable[[Answer], None], model: str = ""
    ) -> None:
        self.model = model
        self.choice: ModelChoice | None = None
        self.started = time.monotonic()
        self.first_token: float | None = None
        self.usage = Usage()
        self.timings = Timings()
        self.sampling: Sampling | None = None
        self.pieces = 0
        self.finished = False
        self._deltas = deltas
        self._first: Delta | None = None
        self._reading: asyncio.Task[object] | None = None
        self._aborted: ExoError | None = None
        self._cancelling = False
        self._timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[Answer], None] | None = on_end

    @property
    def completion_tokens(self) -> int:
        """As counted by the runtime, or for an unfinished answer the pieces that came."""
        return self.usage.completion_tokens or self.pieces

    async def begin(self, *, timeout: float | None = None) -> None:
        """Wait until the run has begun. After `timeout` seconds from now the answer ends with DeadlineExceeded."""
        if timeout is not None:
            expired = DeadlineExceeded(f"The request took longer than {timeout:g} seconds, its limit.")
            self._timer = asyncio.get_running_loop().call_later(timeout, self.abort, expired)
        try:
            self._first = await self._read()
        except StopAsyncIteration:
            self._first = Delta(finish_reason="stop")
        except BaseException:  # also a cancellation: the slot has to become free
            await self.aclose()
            raise

    def abort(self, error: ExoError) -> None:
        """End the answer with `error`, wherever it is. Called by whoever runs the node, from the event loop."""
        if self._aborted is not None:
            return
        self._aborted = error
        if self._reading is not None:
            self._cancelling = True
            self._reading.cancel()

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Delta:
        if self._first is not None:
            delta, self._first = self._first, None
            return delta
        return await self._read()

    async def aclose(self) -> None:
        """Stop the work, if it still goes on, and free the slot."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._deltas.aclose()
        finally:
            on_end, self._on_end = self._on_end, None
            if on_end is not None:
                on_end(self)

    async def _read(self) -> Delta:
        if self._aborted is not None:
            raise self._aborted
        self._reading = asyncio.current_task()
        try:
            delta = await self._deltas.__anext__()
        except BaseException as error:  # whatever the engine made of the cancellation, the abort is what has happened
            self._raise_if_aborted()
            if isinstance(error, AnswerNotValid) and error.usage is not None:
                self.usage = _sane(error.usage)
            raise
        finally:
            self._reading = None
        self._raise_if_aborted()
        self._note(delta)
        return delta

    def _raise_if_aborted(self) -> None:
        """After a read: if `abort` has cancelled it, take that cancellation back and raise the error in its place."""
        if not self._cancelling or self._aborted is None:
            return
        self._cancelling = False
        if take_back_cancellation():
            raise self._aborted from None

    def _note(self, delta: Delta) -> None:
        if delta.text or delta.reasoning or delta.tool_calls:
            self.pieces += 1
            if self.first_token is None:
                self.first_token = time.monotonic()
        if delta.sampling is not None:
            self.sampling = delta.sampling
        if delta.usage is not None:
            self.usage = _sane(delta.usage)
        if delta.timings is not None:
            self.timings = delta.timings
        if delta.finish_reason is not None:
            self.finished = True


def _sane(usage: Usage) -> Usage:
    """Counts come from other programs; a negative one would end the answer in the metrics."""
    counts = {name: max(0, getattr(usage, name)) for name in Usage.__struct_fields__}
    return Usage(**counts)
