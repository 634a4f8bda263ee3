"""When a node is ready, what its default model is, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from scripted_engine import LAST, FakeEngine, Until, asked, read, request, sample, service_for

from exo.inference import EngineHealth
from exo.inference import preload as preload_module
from exo.types import (
    Delta,
    ModelCard,
    ModelLoadError,
    ShuttingDown,
)

# readiness


async def test_ready_once_the_default_model_is_loaded(until: Until) -> None:
    engine = FakeEngine(LAST)
    engine.may_load.clear()
    service = service_for(engine)
    service.start()
    await engine.loading.wait()
    readiness = await service.readiness()
    assert (readiness.ready, readiness.reason) == (False, "loading the default model")
    assert (readiness.models, readiness.loaded) == (["m"], [])
    engine.may_load.set()
    await until(lambda: engine.loads == ["m"])
    await asyncio.sleep(0)
    readiness = await service.readiness()
    assert (readiness.ready, readiness.reason, readiness.loaded) == (True, "", ["m"])
    await service.close()
    assert engine.closed


async def test_a_started_service_is_never_ready_before_it_has_loaded() -> None:
    engine = FakeEngine(LAST)
    engine.may_load.clear()
    service = service_for(engine)
    service.start()
    assert not (await service.readiness()).ready
    await service.close()


async def test_without_preload_nothing_is_loaded_and_the_node_is_ready() -> None:
    engine = FakeEngine(LAST)
    service = service_for(engine)
    service.start(preload=False)
    assert (await service.readiness()).ready
    assert not engine.loading.is_set()
    await service.close()


async def test_a_failed_load_is_told_and_tried_again(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preload_module, "_RETRY", 0.0)
    engine = FakeEngine(LAST)
    engine.load_errors = [ModelLoadError("m.gguf is broken")] * 3
    service = service_for(engine)
    reasons = set()
    service.start()
    while not engine.loads:
        await asyncio.sleep(0)
        readiness = await service.readiness()
        assert not readiness.ready or engine.loads
        reasons.add(readiness.reason)
    await until(lambda: not service._preload.blocked)
    assert "m.gguf is broken" in reasons
    assert (await service.readiness()).ready
    told = [record for record in caplog.records if "m.gguf is broken" in record.getMessage()]
    assert len(told) == 1, "told once, not at every try"
    await service.close()


async def test_a_load_that_fails_unexpectedly_is_told_too(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    """An engine of a plugin may raise anything."""
    engine = FakeEngine(LAST)
    engine.load_errors = [OSError(24, "Too many open files")]
    service = service_for(engine)
    with caplog.at_level(logging.ERROR):
        service.start()
        await until(lambda: not engine.load_errors)
        for _ in range(3):
            await asyncio.sleep(0)
        readiness = await service.readiness()
    await service.close()
    assert not readiness.ready
    assert "Too many open files" in readiness.reason
    assert "Too many open files" in caplog.text


async def test_a_request_that_succeeds_makes_the_node_ready(until: Until) -> None:
    engine = FakeEngine(LAST)
    engine.load_errors = [ModelLoadError("not yet")]
    service = service_for(engine)
    service.start()
    await until(lambda: service._preload.blocked == "not yet")
    await read(await service.chat(request()))
    assert (await service.readiness()).ready
    await service.close()


async def test_the_engines_health_counts() -> None:
    engine = FakeEngine()
    engine.health_now = EngineHealth(ready=False, detail="the worker restarts")
    readiness = await service_for(engine).readiness()
    assert (readiness.ready, readiness.reason) == (False, "the worker restarts")


async def test_an_engine_that_is_not_ready_and_does_not_say_why_is_not_ready() -> None:
    engine = FakeEngine()
    engine.health_now = EngineHealth(ready=False)
    assert not (await service_for(engine).readiness()).ready


async def test_close_ends_a_load_that_still_goes_on() -> None:
    engine = FakeEngine()
    engine.may_load.clear()
    service = service_for(engine)
    service.start()
    await engine.loading.wait()
    await asyncio.wait_for(service.close(), 5)
    assert engine.closed


# the end


async def test_end_refuses_what_waits_and_ends_what_runs_after_the_grace(until: Until) -> None:
    engine = FakeEngine(Delta(text="a"), None)
    service = service_for(engine)
    answer = await service.chat(request())
    async with asked(service) as (waiting,):
        await until(lambda: sample(service, "exo_requests_queued") == 1)
        ending = asyncio.create_task(service.end(grace=60))
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await service.chat(request())
        readiness = await service.readiness()
        assert (readiness.ready, readiness.reason, readiness.running) == (False, "shutting down", 1)
        assert not ending.done(), "the running answer has its grace"
        assert (await anext(answer)).text == "a"
        await answer.aclose()
        await asyncio.wait_for(ending, 5)


async def test_end_aborts_what_outlives_the_grace(until: Until) -> None:
    engine = FakeEngine(Delta(text="a"), None)
    service = service_for(engine)
    answer = await service.chat(request())
    reading = asyncio.create_task(read(answer))
    await until(lambda: engine.hanging == 1)
    await asyncio.wait_for(service.end(grace=0.01), 5)
    with pytest.raises(ShuttingDown, match="before the answer was complete"):
        await reading
    assert engine.open_runs == 0
    assert sample(service, "exo_requests_in_progress") == 0


async def test_end_aborts_a_run_that_has_not_begun(until: Until) -> None:
    engine = FakeEngine(None)
    service = service_for(engine)
    async with asked(service) as (task,):
        await until(lambda: engine.hanging == 1)
        await service.end(grace=0)
        with pytest.raises(ShuttingDown):
            await task


async def test_the_end_of_an_idle_node_takes_no_time() -> None:
    service = service_for(FakeEngine())
    await asyncio.wait_for(service.end(grace=3600), 5)


async def test_an_answer_that_ends_during_the_end_does_not_make_the_node_ready() -> None:
    service = service_for(FakeEngine(Delta(text="a"), LAST))
    answer = await service.chat(request())
    ending = asyncio.create_task(service.end(grace=60))
    await asyncio.sleep(0)
    assert await read(answer) == "a"
    await asyncio.wait_for(ending, 5)
    assert not (await service.readiness()).ready


@pytest.mark.parametrize("error", [None, ModelLoadError("broken")])
async def test_a_load_that_ends_during_the_end_does_not_change_the_state(error: ModelLoadError | None) -> None:
    engine = FakeEngine()
    engine.load_errors = [error] if error else []
    engine.may_load.clear()
    service = service_for(engine)
    service.start()
    await engine.loading.wait()
    await service.end(grace=0)
    engine.may_load.set()
    for _ in range(3):
        await asyncio.sleep(0)
    readiness = await service.readiness()
    await service.close()
    assert (readiness.ready, readiness.reason) == (False, "shutting down")


class TwoModels(FakeEngine):
    """Has b, which is good, and a, which comes first and cannot be loaded."""

    async def models(self) -> Sequence[ModelCard]:
        return [ModelCard(id="b"), ModelCard(id="a")]

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        if model == "a":
            raise ModelLoadError("a is broken")
        self.loads.append(model)


async def test_a_default_that_cannot_be_loaded_gives_way_to_the_next(until: Until) -> None:
    service = service_for(TwoModels())
    service.start()
    await until(lambda: service.engine.loaded() == ["b"])
    await asyncio.sleep(0)
    assert (await service.readiness()).ready
    assert (await service.resolve(None)).id == "b"
    assert [card.id for card in await service.models()] == ["b", "a"]
    await service.close()


async def test_a_default_that_was_asked_for_never_gives_way(until: Until) -> None:
    service = service_for(TwoModels(), default_model="a")
    service.start()
    await until(lambda: "broken" in service._preload.blocked)
    assert (await service.resolve(None)).id == "a"
    assert service.engine.loaded() == []
    await service.close()


async def test_the_default_stays_when_another_model_comes_and_changes_when_it_goes() -> None:
    engine = FakeEngine()
    engine.cards = [ModelCard(id="m")]
    service = service_for(engine)
    assert (await service.resolve(None)).id == "m"
    engine.cards = [ModelCard(id="a"), ModelCard(id="m")]
    assert (await service.resolve(None)).id == "m"
    engine.cards = [ModelCard(id="a")]
    assert (await service.resolve(None)).id == "a"


async def test_hurry_ends_the_grace_time() -> None:
    service = service_for(FakeEngine(Delta(text="a"), None))
    answer = await service.chat(request())
    ending = asyncio.create_task(service.end(1000))
    await asyncio.sleep(0)
    service.hurry()
    await asyncio.wait_for(ending, 5)
    assert await answer.__anext__() == Delta(text="a")
    with pytest.raises(ShuttingDown):
        await answer.__anext__()
    await answer.aclose()


async def test_a_node_that_ends_tries_no_more_to_load(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload_module, "_RETRY", 0.0)
    engine = FakeEngine(LAST)
    engine.load_errors = [ModelLoadError("broken") for _ in range(100_000)]
    service = service_for(engine)
    service.start()
    await until(lambda: len(engine.load_errors) < 100_000)
    await service.end(0.0)
    await asyncio.sleep(0)
    left = len(engine.load_errors)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(engine.load_errors) == left
    await service.close()
