"""What the engines' own tests do not show of the pool."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import pytest

from exo.inference import ModelPool, PooledModel, ResidentModel
from exo.types import ModelLoadError


class Slow(PooledModel):
    """A model whose end takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.closed = False

    @property
    def problem(self) -> str:
        return ""

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


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


async def test_a_model_leaves_when_its_time_is_over(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a", 0.02):
        models["a"].may_close.set()
        assert pool.resident() == [ResidentModel(id="a", expires_in=0.02)]
        await asyncio.sleep(0.05)  # longer than it may be idle, but it is in use
        assert list(pool.models) == ["a"]
    await until(lambda: models["a"].closed)
    assert pool.models == {}


async def test_of_several_users_the_last_one_says_how_long(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a", 0.0):
        models["a"].may_close.set()
        async with pool.use("a"):
            pass
    assert pool.resident() == [ResidentModel(id="a", expires_in=math.inf)]
    async with pool.use("a", 100.0):
        pass
    assert 99 < pool.resident()[0].expires_in <= 100
    async with pool.use("a", 0.0):
        pass
    await until(lambda: pool.models == {})


async def test_use_again_puts_the_end_off(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a", 0.03):
        models["a"].may_close.set()
    async with pool.use("a", 100.0):
        pass
    await asyncio.sleep(0.06)  # the first time is over
    assert list(pool.models) == ["a"]


async def test_the_pool_has_a_time_of_its_own_for_whoever_names_none() -> None:
    async def load(model_id: str, begin: Callable[[], None]) -> Slow:
        begin()
        return Slow()

    pool = ModelPool(load, keep_alive=50.0)
    async with pool.use("a"), pool.use("b", math.inf):
        pass
    assert [(model.id, model.expires_in > 50) for model in pool.resident()] == [("b", True), ("a", False)]


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


async def test_a_model_that_nobody_waited_for_to_the_end_leaves_too() -> None:
    go_on, loaded = asyncio.Event(), Slow()
    loaded.may_close.set()

    async def load(model_id: str, begin: Callable[[], None]) -> Slow:
        begin()
        await go_on.wait()
        return loaded

    pool = ModelPool(load, keep_alive=0.02)
    use = pool.use("a")
    asking = asyncio.ensure_future(use.__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    await until(lambda: loaded.closed)
    assert pool.models == {}


async def test_an_unload_that_waits_holds_up_no_other_model(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a") as old:
        old.may_close.set()
        unloading = asyncio.ensure_future(pool.unload("a"))
        await asyncio.sleep(0)
        other, anew = pool.use("b"), pool.use("a")
        await asyncio.wait_for(other.__aenter__(), 5)
        assert set(pool.models) == {"a", "b"}
        again = asyncio.ensure_future(anew.__aenter__())
        await asyncio.sleep(0.01)
        assert not again.done(), "a new request waits until the model is gone"
        assert not unloading.done()
    await unloading
    assert old.closed
    new = await again
    assert new is models["a"]
    assert new is not old
    for held in (other, anew):
        await held.__aexit__(None, None, None)


async def test_two_unloads_at_once_are_one(pool: ModelPool[Slow], models: dict[str, Slow]) -> None:
    async with pool.use("a"):
        models["a"].may_close.set()
        both = asyncio.gather(pool.unload("a"), pool.unload("a"))
        await asyncio.sleep(0)
    await both
    assert pool.models == {}
    async with pool.use("a"):
        assert list(pool.models) == ["a"]


async def test_an_unload_waits_for_a_load_under_way() -> None:
    go_on, loaded = asyncio.Event(), Slow()
    loaded.may_close.set()

    async def load(model_id: str, begin: Callable[[], None]) -> Slow:
        begin()
        await go_on.wait()
        return loaded

    pool = ModelPool(load)
    use = pool.use("a")
    asking = asyncio.ensure_future(use.__aenter__())
    await asyncio.sleep(0)
    unloading = asyncio.ensure_future(pool.unload("a"))
    await asyncio.sleep(0)
    go_on.set()
    await asking
    assert not unloading.done()
    await use.__aexit__(None, None, None)
    await unloading
    assert loaded.closed
