from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest
from scripted_server import until
from two_models import HARD, ByText, TwoModels, automatic_service

from exo.inference import Answer, InferenceService
from exo.inference.automatic import OPEN_MODEL, is_automatic
from exo.inference.caller import Caller, asking
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    Draining,
    EmbeddingRequest,
    Limits,
    Message,
    ModelCard,
    ModelLoadError,
    ModelNotFound,
    Timings,
    UnsupportedParameter,
    Usage,
)


def chat(*texts: str, model: str = OPEN_MODEL, limits: Limits | None = None) -> ChatRequest:
    """A conversation; the texts are the user's and the model's in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    return ChatRequest(model=model, messages=messages, limits=limits or Limits())


async def read(answer: Answer) -> str:
    text = "".join([delta.text async for delta in answer])
    await answer.aclose()
    return text


@pytest.fixture
def engine() -> TwoModels:
    return TwoModels()


@pytest.fixture
def chooser() -> ByText:
    return ByText()


@pytest.fixture
def service(engine: TwoModels, chooser: ByText) -> InferenceService:
    return automatic_service(engine, chooser)


@pytest.mark.parametrize("name", ["auto", "AUTO", "auto:latest", "Auto:latest"])
async def test_auto_is_left_open_until_the_request_is_read(service: InferenceService, name: str) -> None:
    assert is_automatic(name)
    assert await service.target(name) == OPEN_MODEL


async def test_names_mean_their_models_all_the_same(service: InferenceService) -> None:
    assert await service.target("thinker") == "thinker"
    assert await service.target(None) == "quick"


async def test_auto_as_the_default_model(engine: TwoModels) -> None:
    service = automatic_service(engine, default_model="auto")
    assert await service.target(None) == OPEN_MODEL
    assert (await service.resolve(None)).id == "quick", "what needs a model without a text gets a quick one"


async def test_without_a_chooser_auto_is_the_default_model(engine: TwoModels) -> None:
    service = automatic_service(engine, default_model="auto")
    service._automatic = None
    assert await service.target("auto") == "quick"
    assert await service.target(None) == "quick"


async def test_the_text_decides_and_the_answer_tells(service: InferenceService) -> None:
    easy, hard = await service.chat(chat("hello")), None
    assert await read(easy) == "quick"
    hard = await service.chat(chat(f"please {HARD}"))
    assert await read(hard) == "thinker"
    assert (hard.model, hard.choice and hard.choice.rule) == ("thinker", "proof")
    sample = service.metrics.registry.get_sample_value
    assert sample("exo_routing_decisions_total", {"model": "thinker", "rule": "proof"}) == 1
    assert sample("exo_routing_decisions_total", {"model": "quick", "rule": "short-question"}) == 1


async def test_raw_prompts_are_decided_too(service: InferenceService) -> None:
    assert await read(await service.complete(CompletionRequest(model=OPEN_MODEL, prompt=HARD))) == "thinker"


async def test_a_count_is_for_the_model_that_would_answer(service: InferenceService, engine: TwoModels) -> None:
    await service.count(chat(HARD))
    assert engine.requests[-1].model == "thinker"


async def test_embeddings_are_made_by_the_default_model(service: InferenceService, engine: TwoModels) -> None:
    model = (await service.resolve_for_use("auto")).id
    await service.embed(EmbeddingRequest(model=model, inputs=("a",)))
    assert engine.answered == ["quick"]


async def test_the_situation_tells_what_is_loaded_and_waits(
    service: InferenceService, engine: TwoModels, chooser: ByText
) -> None:
    running = await service.chat(chat("hi", model="quick"))
    waiting = asyncio.create_task(service.chat(chat("hello")))
    await until(lambda: bool(chooser.situations))
    (situation,) = chooser.situations
    assert situation.waiting == {"quick": 1}
    assert [(one.card.id, one.loaded, one.context) for one in situation.candidates] == [
        ("quick", True, 2048),
        ("thinker", False, 0),
    ]
    await running.aclose()
    await read(await waiting)


async def test_the_model_of_a_conversation_is_remembered(service: InferenceService, chooser: ByText) -> None:
    await read(await service.chat(chat(f"start: {HARD}")))
    await read(await service.chat(chat(f"start: {HARD}", "thinker", "and why?")))
    await read(await service.chat(chat("something else")))
    assert [situation.previous for situation in chooser.situations] == ["", "thinker", ""]


async def test_conversations_that_begin_alike_are_two(service: InferenceService, chooser: ByText) -> None:
    await read(await service.chat(chat("hello")))
    await read(await service.chat(chat("hello", "hi", HARD)))
    await read(await service.chat(chat("hello", "hi", "the sea")))
    assert [situation.previous for situation in chooser.situations] == ["", "quick", "quick"]


async def test_nobody_learns_of_the_conversations_of_another_key(service: InferenceService, chooser: ByText) -> None:
    with asking(Caller(name="alice")):
        await read(await service.chat(chat(HARD)))
    for name in ("alice", "bob"):
        with asking(Caller(name=name)):
            await read(await service.chat(chat(HARD, "thinker", "why?")))
    assert [situation.previous for situation in chooser.situations] == ["", "thinker", ""]


async def test_the_other_model_answers_where_a_load_fails(service: InferenceService, engine: TwoModels) -> None:
    engine.broken = {"thinker"}
    answer = await service.chat(chat(HARD))
    assert await read(answer) == "quick"
    choice = answer.choice
    assert choice is not None
    assert (choice.rule, choice.fallback_from, choice.role) == ("fallback", "thinker", "reasoning")
    sample = service.metrics.registry.get_sample_value
    assert sample("exo_routing_decisions_total", {"model": "quick", "rule": "fallback"}) == 1


async def test_a_model_that_failed_is_not_tried_again_at_once(service: InferenceService, engine: TwoModels) -> None:
    engine.broken = {"thinker"}
    await read(await service.chat(chat(HARD)))
    asked_before = len(engine.requests)
    engine.broken = set()
    answer = await service.chat(chat(HARD))
    assert await read(answer) == "quick"
    assert len(engine.requests) == asked_before + 1
    assert answer.choice is not None
    assert answer.choice.fallback_from == "thinker"


async def test_the_first_failure_is_told_where_all_fail(service: InferenceService, engine: TwoModels) -> None:
    engine.broken, engine.resident_now = {"thinker", "quick"}, ""
    with pytest.raises(ModelLoadError, match="thinker is broken"):
        await service.chat(chat(HARD))


async def test_a_model_that_cannot_think_answers_whoever_wants_thinking(
    service: InferenceService, engine: TwoModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wish has been heard by the choice; refusing the answer would help nobody."""
    monkeypatch.setattr(TwoModels, "capabilities", TwoModels.capabilities | {"think_budget"})
    await read(await service.chat(msgspec.structs.replace(chat("hi"), think=True, think_budget=9)))
    asked = engine.requests[-1]
    assert (asked.model, asked.think, asked.think_budget) == ("quick", None, None)
    await read(await service.chat(msgspec.structs.replace(chat(HARD), think=True)))
    assert (engine.requests[-1].model, engine.requests[-1].think) == ("thinker", True)


async def test_only_models_with_the_wanted_context_are_candidates(service: InferenceService, chooser: ByText) -> None:
    await read(await service.chat(chat("hi", limits=Limits(context=2048))))
    assert [one.card.id for one in chooser.situations[-1].candidates] == ["quick", "thinker"]
    await read(await service.chat(chat("hi", limits=Limits(context=2049))))
    assert [one.card.id for one in chooser.situations[-1].candidates] == ["thinker"]


async def test_a_context_that_no_model_has_is_refused(
    service: InferenceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [card for card in await service.models() if card.context_length]

    async def small() -> list[object]:
        return list(cards)

    monkeypatch.setattr(service.engine, "models", small)
    with pytest.raises(UnsupportedParameter, match="more than 2048 tokens"):
        await service.chat(chat("hi", limits=Limits(context=2049)))


async def test_loads_are_bounded_however_the_texts_alternate(service: InferenceService, engine: TwoModels) -> None:
    for number in range(200):
        await read(await service.chat(chat(HARD if number % 2 else "hi")))
    assert 20 <= len(engine.loads) <= 20 + ByText.load_burst


async def test_idle_time_counts_from_the_end_of_the_last_answer(
    engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser.load_burst, chooser.loads_per_request, chooser.idle_seconds_per_load = 1, 0.0, 30.0
    now = 1000.0
    monkeypatch.setattr("exo.inference.automatic.time.monotonic", lambda: now)
    service = automatic_service(engine, chooser)
    await read(await service.chat(chat(HARD)))
    await read(await service.chat(chat(HARD)))
    assert not chooser.situations[-1].may_load
    now += 31
    await read(await service.chat(chat("hi")))
    assert chooser.situations[-1].may_load


async def test_embedding_models_are_no_choice_for_a_chat(
    service: InferenceService, engine: TwoModels, chooser: ByText
) -> None:
    engine.cards = [ModelCard(id="a-bert", pooling="mean"), *engine.cards]
    engine.resident_now = "a-bert"
    await read(await service.chat(chat("hi")))
    assert [one.card.id for one in chooser.situations[-1].candidates] == ["quick", "thinker"]


async def test_the_default_of_auto_is_a_quick_model_that_can_chat(engine: TwoModels) -> None:
    engine.cards = [ModelCard(id="a-bert", pooling="mean"), ModelCard(id="b", role="reasoning"), *engine.cards]
    assert (await automatic_service(engine, default_model="auto").resolve(None)).id == "quick"


async def test_a_model_that_the_engine_cannot_describe_is_left_out(
    service: InferenceService, engine: TwoModels, chooser: ByText, caplog: pytest.LogCaptureFixture
) -> None:
    engine.undescribed = {"quick"}
    assert await read(await service.chat(chat("hi"))) == "thinker"
    assert "cannot describe it" in caplog.text
    engine.undescribed = {"quick", "thinker"}
    with pytest.raises(ModelNotFound):
        await service.chat(chat("hi"))


async def test_a_choice_that_is_called_auto_itself_is_none(
    service: InferenceService, engine: TwoModels, chooser: ByText
) -> None:
    """Another node behind this one may list it."""
    engine.cards = [ModelCard(id="auto"), *engine.cards]
    assert await service.target("auto") == "auto", "who names it gets it"
    await read(await service.chat(chat("hi")))
    assert [one.card.id for one in chooser.situations[-1].candidates] == ["quick", "thinker"]


async def test_what_changes_a_model_does_not_take_auto_for_one(service: InferenceService) -> None:
    with pytest.raises(ModelNotFound):
        await service.resolve("auto")
    assert (await service.resolve_for_use("auto")).id == "quick"


async def test_a_count_costs_no_load(service: InferenceService, chooser: ByText) -> None:
    for _ in range(20):
        await service.count(chat(HARD))
    await read(await service.chat(chat("hi")))
    assert chooser.situations[-1].may_load


async def test_a_second_attempt_has_the_time_that_is_left(
    engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("exo.inference.service.time.monotonic", lambda: now)
    service = automatic_service(engine, chooser, request_timeout=60.0)
    engine.broken = {"thinker"}
    attempts: list[float | None] = []

    async def chat_of(request: ChatRequest) -> AsyncGenerator[Delta, None]:
        nonlocal now
        attempts.append(request.limits.deadline)
        now += 20
        await engine.load(request.model)
        yield Delta(finish_reason="stop")

    monkeypatch.setattr(engine, "chat", chat_of)
    await read(await service.chat(chat(HARD)))
    assert attempts == [60.0, 40.0]


async def test_clients_that_leave_during_a_load_cost_it_once(
    engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser.load_burst, chooser.loads_per_request = 2, 0.0
    service = automatic_service(engine, chooser)
    may_load = asyncio.Event()

    async def chat_of(request: ChatRequest) -> AsyncGenerator[Delta, None]:
        await may_load.wait()
        await engine.load(request.model)
        yield Delta(finish_reason="stop")

    monkeypatch.setattr(engine, "chat", chat_of)
    for _ in range(30):
        asked = asyncio.create_task(service.chat(chat(HARD)))
        await until(lambda: (service._scheduler.running, service._scheduler.waiting) == (1, 0))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    may_load.set()
    await read(await service.chat(chat(HARD)))
    await read(await service.chat(chat("hi")))
    assert chooser.situations[-1].may_load


async def test_what_was_accepted_before_a_drain_falls_back_all_the_same(
    service: InferenceService, engine: TwoModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load(model: str, *, keep_alive: float | None = None) -> None:
        if model == "thinker":
            service.draining = True
            raise ModelLoadError("killed")

    monkeypatch.setattr(engine, "load", load)
    assert await read(await service.chat(chat(HARD))) == "quick"
    with pytest.raises(Draining):
        await service.chat(chat("hi"))


async def test_a_load_that_failed_costs_again_when_it_is_tried_again(
    engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("exo.inference.automatic.time.monotonic", lambda: now)
    chooser.load_burst, chooser.loads_per_request = 2, 0.0
    service = automatic_service(engine, chooser)
    engine.broken = {"thinker"}
    await read(await service.chat(chat(HARD)))
    engine.broken = set()
    now += 61
    assert await read(await service.chat(chat(HARD))) == "thinker"
    await read(await service.chat(chat(HARD)))
    assert not chooser.situations[-1].may_load


async def test_a_model_that_answers_is_no_longer_avoided(service: InferenceService, engine: TwoModels) -> None:
    engine.broken = {"thinker"}
    await read(await service.chat(chat(HARD)))
    engine.broken, engine.resident_now = {"quick"}, ""
    assert await read(await service.chat(chat("hi"))) == "thinker"
    tried = len(engine.requests)
    assert await read(await service.chat(chat("hello"))) == "thinker", "the other one is to be avoided now"
    assert len(engine.requests) == tried + 1


async def test_idle_time_is_earned_once(engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("exo.inference.automatic.time.monotonic", lambda: now)
    chooser.load_burst, chooser.loads_per_request, chooser.idle_seconds_per_load = 1, 0.0, 30.0
    service = automatic_service(engine, chooser)
    await read(await service.chat(chat(HARD)))
    now += 20
    await service.count(chat("hi"))
    await service.count(chat("hi"))
    assert not chooser.situations[-1].may_load


async def test_loads_and_speeds_are_learnt_from_answers(
    service: InferenceService, engine: TwoModels, chooser: ByText, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chat_of(request: ChatRequest) -> AsyncGenerator[Delta, None]:
        usage, timings = Usage(completion_tokens=40), Timings(load=2.5, decode=4.0)
        yield Delta(text="x", finish_reason="stop", usage=usage, timings=timings)

    monkeypatch.setattr(engine, "chat", chat_of)
    await read(await service.chat(chat("hi")))
    await read(await service.chat(chat("hi")))
    quick, thinker = chooser.situations[-1].candidates
    assert (quick.load_seconds, quick.tokens_per_s) == (2.5, 10.0)
    assert (thinker.load_seconds, thinker.tokens_per_s) == (None, None)


async def test_a_model_that_is_gone_has_no_conversations(
    service: InferenceService, engine: TwoModels, chooser: ByText
) -> None:
    await read(await service.chat(chat(HARD)))
    engine.cards = engine.cards[:1]
    await read(await service.chat(chat(HARD, "thinker", "why?")))
    assert chooser.situations[-1].previous == ""


async def test_loads_that_others_wait_for_are_counted(engine: TwoModels, chooser: ByText) -> None:
    chooser.load_burst, chooser.loads_per_request = 1, 0.0
    service = automatic_service(engine, chooser)
    running = await service.chat(chat("hi", model="quick"))
    waiting = [asyncio.create_task(service.chat(chat(text))) for text in (HARD, "hello")]
    await until(lambda: len(chooser.situations) == 2)
    assert [situation.may_load for situation in chooser.situations] == [True, False]
    await running.aclose()

    async def finish(asked: asyncio.Task[Answer]) -> None:
        await read(await asked)

    await asyncio.gather(*map(finish, waiting))


async def test_a_waiting_request_for_the_loaded_model_goes_first(service: InferenceService, engine: TwoModels) -> None:
    running = await service.chat(chat("hi", model="quick"))
    waiting = [asyncio.create_task(service.chat(chat("x", model=model))) for model in ("thinker", "quick")]
    await until(lambda: service._scheduler.waiting == 2)
    engine.answered.clear()
    await read(running)
    for answer in waiting[::-1]:
        await read(await answer)
    assert engine.answered == ["quick", "thinker"]
