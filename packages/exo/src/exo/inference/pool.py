"""Models in memory: loaded on demand, shared by the requests on them, unloaded to make room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from exo.inference.engine import EngineHealth, ResidentModel
from exo.types import Delta, ModelLoadError, Timings

logger = logging.getLogger(__name__)


class PooledModel(ABC):
    """A model in memory. `users` counts who needs it to stay there.

    `retiring` counts who wants it gone: such a model takes no new users. `retired` is set when one of them has ended.

    `size` is what it takes in bytes and `context` its length in tokens, 0 if that is not known. Unused, it stays for
    `keep_alive` seconds after `last_used`, which is a time of the monotonic clock.
    """

    size = 0
    context = 0

    def __init__(self) -> None:
        self.users = 0
        self.retiring = 0
        self.retired = asyncio.Event()
        self.keep_alive = math.inf
        self.last_used = time.monotonic()
        self.timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Condition()

    @property
    @abstractmethod
    def problem(self) -> str:
        """Why the model cannot answer now although it is loaded; empty while it can."""

    @abstractmethod
    async def close(self) -> None:
        """Free what the model holds."""

    @property
    def expires_in(self) -> float:
        """Seconds until it is unloaded, if nobody uses it any more; infinite for never."""
        idle = 0.0 if self.users else time.monotonic() - self.last_used
        return max(0.0, self.keep_alive - idle)

    async def idle(self) -> None:
        """Wait until nobody uses the model."""
        async with self._idle:
            await self._idle.wait_for(lambda: self.users == 0)

    async def leave(self) -> None:
        self.users -= 1
        self.last_used = time.monotonic()
        async with self._idle:
            self._idle.notify_all()


M = TypeVar("M", bound=PooledModel)


@dataclass
class _Loading(Generic[M]):
    """A load under way: its task, how many requests wait for it, and whether it has found room and begun."""

    task: asyncio.Task[M] = field(init=False)
    waiters: int = 0
    begun: bool = False
    model: M | None = None


class ModelPool(Generic[M]):
    """The loaded models of one engine, by id. One owner: the event loop.

    `load(model_id, begin)` makes room with `retire` as it sees fit, then calls `begin`, then loads; no
    other load runs meanwhile. `keep_alive` is for whoever names no other. Blocks: `use`, while a model is
    loaded. Can race: a load that nobody waits for any more, which is given up while it still waits for room, and goes
    on once it has begun.
    """

    def __init__(
        self, load: Callable[[str, Callable[[], None]], Awaitable[M]], *, keep_alive: float = math.inf
    ) -> None:
        self._load = load
        self._keep_alive = keep_alive
        self._loaded: dict[str, M] = {}  # in the order of last use
        self._loading: dict[str, _Loading[M]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # unloads under way
        self._closed = False
        self._switching = asyncio.Lock()  # waiters are served in order, so no model is kept waiting for ever

    @property
    def models(self) -> dict[str, M]:
        """What is loaded, used least recently first. A copy."""
        return dict(self._loaded)

    def resident(self) -> list[ResidentModel]:
        """What is loaded, used most recently first."""
        return [
            ResidentModel(id=name, size=model.size, context=model.context, expires_in=model.expires_in)
            for name, model in reversed(self._loaded.items())
        ]

    def health(self) -> EngineHealth:
        """Not ready while the worker of a loaded model cannot be started."""
        for name, model in self._loaded.items():
            if model.problem:
                return EngineHealth(ready=False, detail=f"the worker of {name} cannot be started: {model.problem}")
        return EngineHealth(ready=True)

    @contextlib.asynccontextmanager
    async def use(self, model_id: str, keep_alive: float | None = None) -> AsyncIterator[M]:
        """The loaded model, kept in memory for as long as the block lasts, and then for `keep_alive` seconds.

        Of several users the one that came last says how long.
        """
        model = self._loaded.get(model_id)
        if model is None or model.retiring:
            model = await self._join_load(model_id)
        else:
            model.users += 1
        self._loaded[model_id] = self._loaded.pop(model_id)
        model.keep_alive = self._keep_alive if keep_alive is None else keep_alive
        _stop_timer(model)
        try:
            yield model
        finally:
            await model.leave()
            self._expire_later(model_id, model)

    @contextlib.asynccontextmanager
    async def use_timed(self, model_id: str, keep_alive: float | None = None) -> AsyncIterator[tuple[M, float]]:
        """As `use`, with the seconds until the model was there."""
        started = time.monotonic()
        async with self.use(model_id, keep_alive) as model:
            yield model, time.monotonic() - started

    async def unload(self, model_id: str) -> None:
        """Let the model finish what it has, then unload it; one that is not loaded is left alone.

        Loads of other models go on meanwhile. One of this model that is under way is waited for.
        """
        loading = self._loading.get(model_id)
        if loading is not None:
            await asyncio.wait({loading.task})
        await self.retire(model_id)

    async def _unload_expired(self, model_id: str) -> None:
        """Unload the model unless somebody has used it by now."""
        async with self._switching:
            model = self._loaded.get(model_id)
            if model is not None and model.users == 0 and model.expires_in == 0:
                await self.retire(model_id)

    def next_to_go(self) -> str:
        """The model that was used least recently, an idle one if there is one."""
        return min(self._loaded, key=lambda name: self._loaded[name].users > 0)

    async def retire(self, model_id: str) -> None:
        """For `load`: let the model finish what it has, hold new requests back meanwhile, and unload it."""
        model = self._loaded.get(model_id)
        if model is None:
            return
        logger.info("unloading %s", model_id)
        model.retiring += 1
        try:
            await model.idle()
            if self._loaded.get(model_id) is model:  # else somebody else was quicker
                del self._loaded[model_id]
                _stop_timer(model)
                await self._close(model)
        finally:
            model.retiring -= 1
            model.retired.set()

    async def close(self) -> None:
        """Unload everything at once; nothing can be used afterwards."""
        self._closed = True
        loading = [entry.task for entry in self._loading.values()]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        models, self._loaded = list(self._loaded.values()), {}
        for model in models:
            _stop_timer(model)
        await asyncio.gather(*(model.close() for model in models), *self._tasks)

    async def _close(self, model: M) -> None:
        """To the end, even if whoever asked for it goes away meanwhile."""
        await asyncio.shield(self._go_on(model.close()))

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that `close` waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _expire_later(self, model_id: str, model: M) -> None:
        """Unload the model when its time is over, unless it is used again, or gone."""
        if model.users or self._loaded.get(model_id) is not model or not math.isfinite(model.keep_alive):
            return
        _stop_timer(model)
        loop = asyncio.get_running_loop()
        model.timer = loop.call_later(model.expires_in, lambda: self._go_on(self._unload_expired(model_id)))

    async def _join_load(self, model_id: str) -> M:
        """Wait for a load; the model comes with this request among its users.

        The load has a task of its own, which goes on for the others when the request that began it is gone. Only one
        that nobody waits for any more, and that still waits for room, is given up.
        """
        loading = self._loading.get(model_id)
        if loading is None:
            loading = self._loading[model_id] = _Loading()
            loading.task = asyncio.create_task(self._load_in_turn(model_id, loading), name=f"load {model_id}")
            loading.task.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # nobody may be left to ask
        loading.waiters += 1
        try:
            return await asyncio.shield(loading.task)
        except BaseException:  # also a cancellation: whoever waits is counted
            loading.waiters -= 1
            if loading.model is not None:
                await loading.model.leave()
                self._expire_later(model_id, loading.model)
            elif loading.waiters == 0 and not loading.begun:
                self._forget(model_id, loading)  # or somebody could join what is given up
                loading.task.cancel()
            raise

    async def _load_in_turn(self, model_id: str, loading: _Loading[M]) -> M:
        def begin() -> None:
            loading.begun = True

        try:
            await self._until_retired(model_id)
            async with self._switching:
                model = self._loaded.get(model_id)
                if model is None:
                    model = await self._load(model_id, begin)
                    await self._refuse_if_closed(model_id, model)
                self._loaded[model_id] = loading.model = model
                model.users += loading.waiters  # at once, or the next load could take it from them
                model.keep_alive = self._keep_alive
                self._expire_later(model_id, model)  # nobody may wait for it any more
                return model
        finally:
            self._forget(model_id, loading)

    async def _until_retired(self, model_id: str) -> None:
        """Not under the lock, so that other models may be loaded meanwhile."""
        while (model := self._loaded.get(model_id)) is not None and model.retiring:
            model.retired.clear()
            await model.retired.wait()

    def _forget(self, model_id: str, loading: _Loading[M]) -> None:
        if self._loading.get(model_id) is loading:
            del self._loading[model_id]

    async def _refuse_if_closed(self, model_id: str, model: M) -> None:
        if self._closed:
            await self._close(model)
            raise ModelLoadError(f"The engine was closed while {model_id} was loading.")


def _stop_timer(model: PooledModel) -> None:
    if model.timer is not None:
        model.timer.cancel()
        model.timer = None


def with_load(delta: Delta, seconds: float) -> Delta:
    """The last delta tells how long the load took."""
    if delta.finish_reason is None:
        return delta
    timings = msgspec.structs.replace(delta.timings or Timings(), load=seconds)
    return msgspec.structs.replace(delta, timings=timings)
