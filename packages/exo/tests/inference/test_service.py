from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry

from exo.inference import (
    Answer,
    Availability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    InferenceService,
    NodeMetrics,
)
from exo.inference import (
    service as service_module,
)
from exo.inference.dummy import DummyEngine
from exo.models import ModelStore
from exo.types import (
    ChatRequest,
    DeadlineExceeded,
    Delta,
    EngineError,
    InvalidRequest,
    Limits,
    Message,
    ModelCard,
    ModelLoadError,
    ModelNotFound,
    QueueFull,
    RunFailed,
    ShuttingDown,
    Timings,
    Usage,
)

Until = Callable[[Callable[[], bool]], Awaitable[None]]

LAST = Delta(
    finish_reason="stop",
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=5),
    timings=Timings(decode=2.0),
)
CONTEXT = EngineContext(ModelStore(Path("unused")))


class FakeEngine(InferenceEngine):
    """Plays `script`: deltas are said, exceptions raised, None hangs until it is cancelled."""

    name: ClassVar[str] = "fake"

    def __init__(self, *script: Delta | Exception | None, slots: int = 1) -> None:
        super().__init__(CONTEXT)
        self.script = script
        self.cards = [ModelCard(id="m", family="f", aliases=("em",))]
        self.load_errors: list[Exception] = []
        self.loading = asyncio.Event()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.loads: list[str] = []
        self.health_now = EngineHealth(ready=True)
        self.hanging = 0
        self.open_runs = 0
        self.closed = False
        self._slots = slots

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return Availability(ok=True)

    @property
    def slots(self) -> int:
        return self._slots

    async def models(self) -> Sequence[ModelCard]:
        return self.cards

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        self.loading.set()
        await self.may_load.wait()
        if self.load_errors:
            raise self.load_errors.pop(0)
        self.loads.append(model)

    async def unload(self, model: str) -> None:
        self.loads.remove(model)

    def loaded(self) -> Sequence[str]:
        return self.loads

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.open_runs += 1
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    self.hanging += 1
                    await asyncio.Event().wait()
                else:
                    yield step
        finally:
            self.open_runs -= 1

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        return []

    async def count(self, request: ChatRequest) -> int:
        return 0

    async def health(self) -> EngineHealth:
        return self.health_now

    async def close(self) -> None:
        self.closed = True


def service_for(engine: InferenceEngine, **options: object) -> InferenceService:
    return InferenceService(engine, NodeMetrics(CollectorRegistry()), **options)  # type: ignore[arg-type]


def request(model: str = "m", *, deadline: float | None = None) -> ChatRequest:
    message = Message(role="user", content="hello there")
    return ChatRequest(model=model, messages=(message,), limits=Limits(deadline=deadline))


def sample(service: InferenceService, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def asked(service: InferenceService, count: int = 1) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """So many requests under way at the same time."""
    tasks = [asyncio.create_task(service.chat(request())) for _ in range(count)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Answer):
                await result.aclose()


async def read(answer: Answer) -> str:
    async with contextlib.aclosing(answer):
        return "".join([delta.text async for delta in answer])


# models


async def test_names_of_models() -> None:
    engine = FakeEngine()
    engine.cards = [ModelCard(id="b", aliases=("bee",)), ModelCard(id="a"), ModelCard(id="c")]
    service = service_for(engine, default_model="bee")
    assert [card.id for card in await service.models()] == ["b", "a", "c"], "the default first, then by id"
    assert (await service.resolve("c")).id == "c"
    assert (await service.resolve("bee")).id == "b"
    assert (await service.resolve(None)).id == (await service.resolve("")).id == "b"


async def test_without_a_set_default_the_first_model_is_it() -> None:
    engine = FakeEngine()
    engine.cards = [ModelCard(id="b"), ModelCard(id="a")]
    assert (await service_for(engine).resolve(None)).id == "a"


@pytest.mark.parametrize("name", ["gpt-4", "mm", "m ", "default"])
async def test_an_unknown_model_is_never_replaced_by_another(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await service_for(FakeEngine()).resolve(name)
    assert (caught.value.model, caught.value.known) == (name, ["m"])


async def test_a_name_in_other_case_counts_where_no_exact_one_does() -> None:
    engine = FakeEngine()
    engine.cards = [ModelCard(id="M", aliases=("x",)), ModelCard(id="m"), ModelCard(id="n", aliases=("X", "Y"))]
    service = service_for(engine)
    assert [(await service.resolve(name)).id for name in ("M", "m", "N", "x", "X", "y")] == [
        "M",
        "m",
        "n",
        "M",
        "n",
        "n",
    ]


async def test_a_default_that_is_not_there_is_not_replaced_either() -> None:
    with pytest.raises(ModelNotFound, match="'gone'"):
        await service_for(FakeEngine(), default_model="gone").resolve(None)


async def test_an_empty_store_says_how_to_fill_it() -> None:
    engine = FakeEngine()
    engine.cards = []
    service = service_for(engine)
    with pytest.raises(ModelLoadError, match="exo models"):
        await service.resolve(None)
    with pytest.raises(ModelNotFound, match="pull one"):
        await service.resolve("m")
    readiness = await service.readiness()
    assert (readiness.ready, readiness.reason) == (False, "no model is in the store")


async def test_model_info_follows_the_store() -> None:
    engine = FakeEngine()
    service = service_for(engine)
    await service.update_model_info()
    assert sample(service, "exo_model_info", model="m", family="f", engine="fake") == 1
    engine.cards = [ModelCard(id="n")]
    await service.update_model_info()
    assert sample(service, "exo_model_info", model="m", family="f", engine="fake") is None
    assert sample(service, "exo_model_info", model="n", family="", engine="fake") == 1


# answers


async def test_an_answer_of_the_dummy_engine() -> None:
    env = {"EXO_DUMMY_RATE": "0", "EXO_DUMMY_TOKENS": "3"}
    service = service_for(DummyEngine(EngineContext(CONTEXT.store, env=env)))
    card = await service.resolve(None)
    assert await read(await service.chat(request(card.id))) == "word0 word1 word2 "
    assert sample(service, "exo_tokens_generated_total", model="dummy") == 3
    assert sample(service, "exo_prompt_tokens_total", model="dummy") == 2


async def test_metrics_of_a_finished_answer() -> None:
    service = service_for(FakeEngine(Delta(text="a"), Delta(text="b"), LAST))
    answer = await service.chat(request())
    assert sample(service, "exo_requests_in_progress") == 1
    assert await read(answer) == "ab"
    assert sample(service, "exo_requests_in_progress") == 0
    assert sample(service, "exo_tokens_generated_total", model="m") == 4
    assert sample(service, "exo_prompt_tokens_total", model="m") == 7
    assert sample(service, "exo_prompt_tokens_cached_total", model="m") == 5
    assert sample(service, "exo_tokens_per_second", model="m") == 2.0
    assert sample(service, "exo_first_token_latency_seconds_count") == 1
    assert sample(service, "exo_queue_wait_seconds_count") == 1


async def test_an_answer_without_a_word_counts_its_prompt() -> None:
    service = service_for(FakeEngine(LAST))
    assert await read(await service.chat(request())) == ""
    assert sample(service, "exo_prompt_tokens_total", model="m") == 7


async def test_a_refusal_before_the_first_delta_counts_no_tokens_and_frees_the_slot() -> None:
    engine = FakeEngine(RunFailed("no"))
    service = service_for(engine)
    for _ in range(2):
        with pytest.raises(RunFailed, match="no"):
            await service.chat(request())
    assert sample(service, "exo_requests_in_progress") == 0
    assert sample(service, "exo_tokens_generated_total", model="m") is None
    assert sample(service, "exo_first_token_latency_seconds_count") == 0
    assert (await service.readiness()).running == engine.open_runs == 0


async def test_an_engines_own_bug_frees_the_slot_too() -> None:
    service = service_for(FakeEngine(ZeroDivisionError("bug")))
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        await service.chat(request())
    assert (await service.readiness()).running == 0
    assert sample(service, "exo_requests_in_progress") == 0


async def test_an_error_in_the_middle_counts_what_was_said() -> None:
    service = service_for(FakeEngine(Delta(text="a"), Delta(text="b"), RunFailed("broke")))
    answer = await service.chat(request())
    with pytest.raises(RunFailed, match="broke"):
        await read(answer)
    assert sample(service, "exo_tokens_generated_total", model="m") == 2
    assert sample(service, "exo_prompt_tokens_total", model="m") is None, "the engine has not said how many"
    assert sample(service, "exo_requests_in_progress") == 0
    assert (await service.readiness()).running == 0


async def test_a_client_that_goes_away_ends_the_run() -> None:
    engine = FakeEngine(Delta(text="a"), None)
    service = service_for(engine)
    answer = await service.chat(request())
    assert engine.open_runs == 1
    await answer.aclose()
    assert engine.open_runs == 0
    assert (await service.readiness()).running == 0
    assert sample(service, "exo_tokens_generated_total", model="m") == 1


async def test_a_request_cancelled_while_it_waits_leaves_the_queue(until: Until) -> None:
    engine = FakeEngine(None)
    service = service_for(engine)
    async with asked(service, 3) as (_, second, _):
        await until(lambda: sample(service, "exo_requests_queued") == 2)
        assert sample(service, "exo_requests_in_progress") == 3
        second.cancel()
        await until(lambda: sample(service, "exo_requests_in_progress") == 2)
        assert sample(service, "exo_requests_queued") == 1
        assert engine.hanging == 1
    assert sample(service, "exo_requests_in_progress") == 0
    assert engine.open_runs == 0


async def test_a_full_queue(until: Until) -> None:
    service = service_for(FakeEngine(None, slots=2), queue_limit=1)
    assert sample(service, "exo_queue_limit") == 1
    assert sample(service, "exo_slots") == 2
    async with asked(service, 3):
        await until(lambda: sample(service, "exo_requests_queued") == 1)
        with pytest.raises(QueueFull):
            await service.chat(request())
        readiness = await service.readiness()
        assert (readiness.slots, readiness.running, readiness.queued, readiness.queue_limit) == (2, 2, 1, 1)
        assert sample(service, "exo_requests_in_progress") == 3


async def test_a_request_without_messages_is_refused() -> None:
    service = service_for(FakeEngine(LAST))
    with pytest.raises(InvalidRequest) as caught:
        await service.chat(ChatRequest(model="m", messages=()))
    assert caught.value.param == "messages"
    assert sample(service, "exo_requests_in_progress") == 0


async def test_the_deadline_of_a_request_counts_the_queue(until: Until) -> None:
    engine = FakeEngine(None)
    service = service_for(engine)
    async with asked(service):
        await until(lambda: engine.hanging == 1)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(service.chat(request(deadline=0.01)), 5)
        assert (await service.readiness()).queued == 0


@pytest.mark.parametrize(("own", "expected"), [(None, "0.01 seconds"), (0.02, "0.02 seconds")])
async def test_the_deadline_of_the_node_counts_where_a_request_has_none(own: float | None, expected: str) -> None:
    service = service_for(FakeEngine(None), request_timeout=0.01)
    with pytest.raises(DeadlineExceeded, match=expected):
        await asyncio.wait_for(service.chat(request(deadline=own)), 5)


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
    monkeypatch.setattr(service_module, "_PRELOAD_RETRY", 0.0)
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
    await until(lambda: not service._blocked)
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
    await until(lambda: service._blocked == "not yet")
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


# drain


async def test_drain_refuses_what_waits_and_ends_what_runs_after_the_grace(until: Until) -> None:
    engine = FakeEngine(Delta(text="a"), None)
    service = service_for(engine)
    answer = await service.chat(request())
    async with asked(service) as (waiting,):
        await until(lambda: sample(service, "exo_requests_queued") == 1)
        draining = asyncio.create_task(service.drain(grace=60))
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await service.chat(request())
        readiness = await service.readiness()
        assert (readiness.ready, readiness.reason, readiness.running) == (False, "shutting down", 1)
        assert not draining.done(), "the running answer has its grace"
        assert (await anext(answer)).text == "a"
        await answer.aclose()
        await asyncio.wait_for(draining, 5)


async def test_drain_aborts_what_outlives_the_grace(until: Until) -> None:
    engine = FakeEngine(Delta(text="a"), None)
    service = service_for(engine)
    answer = await service.chat(request())
    reading = asyncio.create_task(read(answer))
    await until(lambda: engine.hanging == 1)
    await asyncio.wait_for(service.drain(grace=0.01), 5)
    with pytest.raises(ShuttingDown, match="before the answer was complete"):
        await reading
    assert engine.open_runs == 0
    assert sample(service, "exo_requests_in_progress") == 0


async def test_drain_aborts_a_run_that_has_not_begun(until: Until) -> None:
    engine = FakeEngine(None)
    service = service_for(engine)
    async with asked(service) as (task,):
        await until(lambda: engine.hanging == 1)
        await service.drain(grace=0)
        with pytest.raises(ShuttingDown):
            await task


async def test_drain_of_an_idle_node_takes_no_time() -> None:
    service = service_for(FakeEngine())
    await asyncio.wait_for(service.drain(grace=3600), 5)


async def test_an_answer_that_ends_during_the_drain_does_not_make_the_node_ready() -> None:
    service = service_for(FakeEngine(Delta(text="a"), LAST))
    answer = await service.chat(request())
    draining = asyncio.create_task(service.drain(grace=60))
    await asyncio.sleep(0)
    assert await read(answer) == "a"
    await asyncio.wait_for(draining, 5)
    assert not (await service.readiness()).ready


@pytest.mark.parametrize("error", [None, ModelLoadError("broken")])
async def test_a_load_that_ends_during_the_drain_does_not_change_the_state(error: ModelLoadError | None) -> None:
    engine = FakeEngine()
    engine.load_errors = [error] if error else []
    engine.may_load.clear()
    service = service_for(engine)
    service.start()
    await engine.loading.wait()
    await service.drain(grace=0)
    engine.may_load.set()
    for _ in range(3):
        await asyncio.sleep(0)
    readiness = await service.readiness()
    await service.close()
    assert (readiness.ready, readiness.reason) == (False, "shutting down")


async def test_an_engine_that_breaks_in_the_middle_is_a_failed_run(caplog: pytest.LogCaptureFixture) -> None:
    service = service_for(FakeEngine(Delta(text="a"), ZeroDivisionError("bug")))
    answer = await service.chat(request())
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        await read(answer)
    assert any(record.exc_info for record in caplog.records)


async def test_an_engine_that_never_finishes_its_answer_is_a_failed_run() -> None:
    service = service_for(FakeEngine(Delta(text="a")))
    answer = await service.chat(request())
    with pytest.raises(RunFailed, match="without a finish reason"):
        await read(answer)


async def test_nothing_comes_after_the_finish() -> None:
    service = service_for(
        FakeEngine(Delta(text="a"), Delta(finish_reason="length"), Delta(text="b", finish_reason="stop"))
    )
    answer = await service.chat(request())
    assert [delta.finish_reason async for delta in answer] == [None, "length"]


async def test_an_engine_that_cannot_tell_its_models_is_named_and_nothing_else_breaks() -> None:
    class Broken(FakeEngine):
        async def models(self) -> Sequence[ModelCard]:
            raise ZeroDivisionError("bug")

    service = service_for(Broken())
    with pytest.raises(EngineError, match="fake cannot tell its models"):
        await service.models()
    state = await service.readiness()
    assert (state.ready, "cannot tell its models" in state.reason) == (False, True)


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
    await until(lambda: "broken" in service._blocked)
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
    draining = asyncio.create_task(service.drain(1000))
    await asyncio.sleep(0)
    service.hurry()
    await asyncio.wait_for(draining, 5)
    assert await answer.__anext__() == Delta(text="a")
    with pytest.raises(ShuttingDown):
        await answer.__anext__()
    await answer.aclose()
