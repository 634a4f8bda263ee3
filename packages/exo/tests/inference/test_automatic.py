from __future__ import annotations

import asyncio

import msgspec
import pytest
from scripted_server import until
from two_models import HARD, ByText, TwoModels, automatic_service

from exo.inference import Answer, InferenceService
from exo.inference.automatic import LoadBudget, is_automatic
from exo.types import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Limits,
    Message,
    ModelLoadError,
    UnsupportedParameter,
)
from exo.types.card import AUTO_MODEL


def chat(*texts: str, model: str = AUTO_MODEL, limits: Limits | None = None) -> ChatRequest:
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
    assert await service.target(name) == AUTO_MODEL


async def test_names_mean_their_models_all_the_same(service: InferenceService) -> None:
    assert await service.target("thinker") == "thinker"
    assert await service.target(None) == "quick"


async def test_auto_as_the_default_model(engine: TwoModels) -> None:
    service = automatic_service(engine, default_model="auto")
    assert await service.target(None) == AUTO_MODEL
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
    assert await read(await service.complete(CompletionRequest(model=AUTO_MODEL, prompt=HARD))) == "thinker"


async def test_a_count_is_for_the_model_that_would_answer(service: InferenceService, engine: TwoModels) -> None:
    await service.count(chat(HARD))
    assert engine.requests[-1].model == "thinker"


async def test_embeddings_are_made_by_the_default_model(service: InferenceService, engine: TwoModels) -> None:
    model = (await service.resolve(AUTO_MODEL)).id
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
    service: InferenceService, engine: TwoModels
) -> None:
    """The wish has been heard by the choice; refusing the answer would help nobody."""
    await read(await service.chat(msgspec.structs.replace(chat("hi"), think=True)))
    assert (engine.requests[-1].model, engine.requests[-1].think) == ("quick", None)
    await read(await service.chat(msgspec.structs.replace(chat(HARD), think=True)))
    assert (engine.requests[-1].model, engine.requests[-1].think) == ("thinker", True)


async def test_several_answers_to_one_request_have_one_model(service: InferenceService) -> None:
    settled, choice = await service.settle(chat(HARD))
    assert (settled.model, choice and choice.model) == ("thinker", "thinker")
    named, nothing = await service.settle(chat("hi", model="quick"))
    assert (named.model, nothing) == ("quick", None)


async def test_only_models_with_the_wanted_context_are_candidates(service: InferenceService, chooser: ByText) -> None:
    await read(await service.chat(chat("hi", limits=Limits(context=2048))))
    assert [one.card.id for one in chooser.situations[-1].candidates] == ["quick", "thinker"]


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


def test_a_budget_saves_up_and_runs_out() -> None:
    budget = LoadBudget(burst=2, per_request=0.5, per_idle_second=0.0)
    assert budget.has(2)
    budget.spend()
    budget.spend()
    assert not budget.has(1)
    budget.earn(idle=1e9)
    assert not budget.has(1)
    for _ in range(100):
        budget.earn(idle=0.0)
    assert budget.has(2)
    assert not budget.has(3), "no more than the burst is saved up"


def test_a_node_with_nothing_to_do_may_load_again() -> None:
    budget = LoadBudget(burst=1, per_request=0.0, per_idle_second=1 / 30)
    budget.spend()
    budget.earn(idle=29.0)
    assert not budget.has(1)
    budget.earn(idle=1.5)
    assert budget.has(1)


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
