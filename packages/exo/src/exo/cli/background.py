"""An event loop beside the main thread, which may then wait at a prompt: Ctrl-C and the line editor work only there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar, final

_Result = TypeVar("_Result")


@final
class LoopInThread:
    """A context manager; of the main thread."""

    def __init__(self) -> None:
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="event loop")

    def __enter__(self) -> LoopInThread:
        self._thread.start()
        self._loop = self._started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of `work`. Ctrl-C cancels it, and is raised as KeyboardInterrupt once it has ended.

        By a handler of our own: Python's raises wherever this thread is at that moment, be it here.
        """
        running = _Interruptible(work)
        before = signal.signal(signal.SIGINT, lambda *_: self._loop.call_soon_threadsafe(running.interrupt))
        try:
            task = asyncio.run_coroutine_threadsafe(running.run(), self._loop).result()
        finally:
            signal.signal(signal.SIGINT, before)
        if running.interrupted and task.cancelled():
            raise KeyboardInterrupt
        return task.result()

    @contextlib.contextmanager
    def entered(self, manager: AbstractAsyncContextManager[_Result]) -> Iterator[_Result]:
        """What `manager` yields. As `async with`, but `manager` is not told of what goes wrong inside."""
        value = self.wait(manager.__aenter__())
        try:
            yield value
        finally:
            self.wait(manager.__aexit__(None, None, None))

    async def _main(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._over.wait()


class _Interruptible(Generic[_Result]):
    """Work in the loop's thread, and the wish to end it."""

    def __init__(self, work: Coroutine[Any, Any, _Result]) -> None:
        self.interrupted = False
        self._work = work
        self._task: asyncio.Task[_Result] | None = None

    async def run(self) -> asyncio.Task[_Result]:
        """The task, once it has ended in whatever way."""
        self._task = asyncio.create_task(self._work)
        await asyncio.sleep(0)  # so that it has begun, and may clean up
        if self.interrupted:
            self._task.cancel()
        await asyncio.wait({self._task})
        return self._task

    def interrupt(self) -> None:
        self.interrupted = True
        if self._task is not None:
            self._task.cancel()
