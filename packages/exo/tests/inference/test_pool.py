"""What the engines' own tests do not show of the pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from exo.inference import ModelPool, PooledModel
from exo.types import ModelLoadError


class Slow(PooledModel):
    """A model whose end takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.closed = False

    async def close(self) -> None:
        self.closing.set()
        await self.may_close.wait()
        self.closed = True


@pytest.fixture
def models() -> dict[str, Slow]:
    return {}


@pytest.fixture
def pool(models: dict[str, Slow]) -> ModelPool[Slow]:
    async def load(model_id: str, begin: Callable[[], None]) -> Slow:
        begin()
        models[model_id] = Slow()
        return models[model_id]

    return ModelPool(load)


async def test_a_model_is_closed_to_the_end_even_if_nobody_waits_for_it(
    pool: ModelPool[Slow], models: dict[str, Slow]
) -> None:
    async with pool.use("a"):
        pass
    unloading = asyncio.ensure_future(pool.unload("a"))
    await models["a"].closing.wait()
    unloading.cancel()
    await asyncio.gather(unloading, return_exceptions=True)
    ending = asyncio.ensure_future(pool.close())
    await asyncio.sleep(0)
    assert not ending.done()
    models["a"].may_close.set()
    await ending
    assert models["a"].closed


async def test_only_an_idle_model_is_unloaded_for_idleness(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a"):
        models["a"].may_close.set()
        await pool.unload_if_idle("a")
        await pool.unload_if_idle("not loaded")
        assert list(pool.models) == ["a"]
    await pool.unload_if_idle("a")
    assert pool.models == {}


async def test_a_load_that_ends_after_the_pool_was_closed_leaves_nothing() -> None:
    loaded = Slow()
    loaded.may_close.set()
    go_on = asyncio.Event()

    async def load(_: str, begin: Callable[[], None]) -> Slow:
        begin()
        with contextlib.suppress(asyncio.CancelledError):  # native code that cannot be interrupted
            await go_on.wait()
        return loaded

    pool = ModelPool(load)

    async def use() -> None:
        async with pool.use("a"):
            pass

    using = asyncio.ensure_future(use())
    await asyncio.sleep(0.01)
    await pool.close()
    with pytest.raises((ModelLoadError, asyncio.CancelledError)):
        await using
    assert loaded.closed
    assert pool.models == {}


async def test_nobody_joins_a_load_that_was_given_up() -> None:
    may_begin = asyncio.Event()
    loads: list[str] = []

    async def load(model_id: str, begin: Callable[[], None]) -> Slow:
        loads.append(model_id)
        await may_begin.wait()
        begin()
        return Slow()

    pool = ModelPool(load)

    async def use() -> None:
        async with pool.use("a"):
            pass

    first = asyncio.ensure_future(use())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    second: asyncio.Future[None] | None = None

    def come() -> None:
        nonlocal second
        second = asyncio.ensure_future(use())

    first.add_done_callback(lambda _: come())
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.sleep(0)
    may_begin.set()
    assert second is not None
    await second
    assert loads == ["a", "a"]
