"""Whether a server is there: asked in the background for as long as somebody wants to know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from exo.types import ExoError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Seconds: between two checks while the server is up, before the first and before the later checks while it is
    down (each pause twice the one before), that a caller waits for a first result, and until an unused watch ends."""

    refresh: float = 5.0
    first_retry: float = 1.0
    longest_retry: float = 30.0
    wait: float = 2.0
    unused: float = 60.0


class Watch:
    """Calls `check`, which raises an ExoError while the server is down. One owner: the event loop.

    Nothing runs before the first `look`. `on_check` is told the outcome of each check.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], *, pace: Pace, on_check: Callable[[bool], None]) -> None:
        self.problem = "The server has not answered yet."
        self._was_up: bool | None = None
        self._check = check
        self._pace = pace
        self._on_check = on_check
        self._task: asyncio.Task[None] | None = None
        self._begun = self._ended = self._first = 0
        self._failures = 0
        self._used = self._waited_until = self._next = 0.0
        self._asked = asyncio.Event()
        self._result = asyncio.Condition()

    @property
    def retry_in(self) -> float:
        """Seconds until the next check."""
        return max(0.0, self._next - _now())

    async def look(self) -> bool:
        """Keep watching; wait for the first result, but not long. Returns whether it has waited."""
        self._use()
        left = self._waited_until - _now()
        if self._ended >= self._first or left <= 0:
            return False
        await self._wait_for(self._first, left)
        return True

    async def again(self) -> None:
        """Check now, and wait for the result, but not long."""
        wanted = self._begun + 1
        self._use()
        self._asked.set()
        await self._wait_for(wanted, self._pace.wait)

    def doubt(self) -> None:
        """Something has happened that may have changed the answer: check soon, if anybody is watching."""
        self._asked.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _use(self) -> None:
        self._used = _now()
        if self._task is None or self._task.done():
            self._first = self._begun + 1
            self._waited_until = self._used + self._pace.wait
            self._task = asyncio.create_task(self._run(), name="watch a remote server")

    async def _wait_for(self, number: int, seconds: float) -> None:
        async with self._result:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._result.wait_for(lambda: self._ended >= number), seconds)

    async def _run(self) -> None:
        while _now() - self._used < self._pace.unused:
            self._asked.clear()
            self._begun += 1
            pause = await self._check_once()
            self._next = _now() + pause
            async with self._result:
                self._ended = self._begun
                self._result.notify_all()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause)

    async def _check_once(self) -> float:
        """One check; returns the pause after it."""
        problem = ""
        try:
            await self._check()
        except ExoError as error:
            problem = error.message
        except Exception as error:  # a defect here must not end the watch: the server would look down for ever
            logger.exception("looking at a remote server failed unexpectedly")
            problem = f"Looking at the server failed unexpectedly: {error!r}."
        if self._was_up is not (not problem):
            logger.log(logging.WARNING if problem else logging.INFO, "%s", problem or "the remote server answers")
        self.problem, self._was_up = problem, not problem
        self._on_check(not problem)
        if not problem:
            self._failures = 0
            return self._pace.refresh
        self._failures += 1
        return float(min(self._pace.first_retry * 2 ** min(self._failures - 1, 30), self._pace.longest_retry))


def _now() -> float:
    return asyncio.get_running_loop().time()
