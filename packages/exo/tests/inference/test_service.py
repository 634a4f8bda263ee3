"""Names of models, admission, answers and their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec
import pytest
from scripted_engine import CONTEXT, LAST, FakeEngine, Until, asked, read, request, sample, service_for

from exo.inference import (
    EngineContext,
)
from exo.inference.dummy import DummyEngine
from exo.types import (
    AnswerFormat,
    ChatRequest,
    DeadlineExceeded,
    Delta,
    EngineError,
    InvalidRequest,
    ModelCard,
    ModelLoadError,
    ModelNotFound,
    QueueFull,
    RunFailed,
)

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


@pytest.mark.parametrize("name", ["auto", "Auto", "auto:latest"])
async def test_auto_is_the_default_model_unless_a_model_has_that_name(name: str) -> None:
    engine = FakeEngine()
    engine.cards = [ModelCard(id="b"), ModelCard(id="a")]
    assert (await service_for(engine, default_model="b").resolve_for_use(name)).id == "b"
    engine.cards = [ModelCard(id="b"), ModelCard(id="c", aliases=("auto",))]
    assert (await service_for(engine, default_model="b").resolve_for_use(name)).id == "c"
    with pytest.raises(ModelNotFound, match="'gone'"):
        await service_for(FakeEngine(), default_model="gone").resolve_for_use(name)


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


@pytest.mark.parametrize("constrains", [False, True])
async def test_what_is_counted_is_what_the_engine_would_be_asked(*, constrains: bool) -> None:
    """An engine that cannot constrain an answer gets the format in words."""
    seen: list[ChatRequest] = []

    class Counting(FakeEngine):
        capabilities = FakeEngine.capabilities | ({"json_schema"} if constrains else set())

        async def count(self, request: ChatRequest) -> int:
            seen.append(request)
            return 0

        async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
            seen.append(request)
            yield msgspec.structs.replace(LAST, text="{}")

    service = service_for(Counting())
    asked_for = msgspec.structs.replace(request(), format=AnswerFormat())
    await service.count(asked_for)
    await read(await service.chat(asked_for))
    counted, asked = seen
    assert counted == asked
    assert (counted == asked_for) is constrains
