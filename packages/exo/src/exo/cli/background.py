"""An event loop beside the main thread, which may then wait at a prompt: Ctrl-C and the line editor work only there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, final

_Result = TypeVar("_Result")
_Begun = concurrent.futures.Future[asyncio.Task[_Result]]


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
        """The result of `work`. Ctrl-C cancels it, and is raised as KeyboardInterrupt once it has ended."""
        begun = asyncio.run_coroutine_threadsafe(_begin(work), self._loop)
        try:
            self._do(_ended(begun))
        except KeyboardInterrupt:
            self._do(_ended(begun, cancel=True))
            raise
        return begun.result().result()

    @contextlib.contextmanager
    def entered(self, manager: AbstractAsyncContextManager[_Result]) -> Iterator[_Result]:
        """What `manager` yields. As `async with`, but `manager` is not told of what goes wrong inside."""
        value = self.wait(manager.__aenter__())
        try:
            yield value
        finally:
            self.wait(manager.__aexit__(None, None, None))

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _main(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._over.wait()


async def _begin(work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
    return asyncio.create_task(work)


async def _ended(begun: _Begun[Any], *, cancel: bool = False) -> None:
    task = await asyncio.wrap_future(begun)
    if cancel:
        task.cancel()
    await asyncio.wait({task})
