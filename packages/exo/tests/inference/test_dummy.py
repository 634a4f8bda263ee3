from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exo.inference import EngineContext
from exo.inference.dummy import CONTEXT, MODEL, DummyEngine
from exo.models import ModelStore
from exo.types import ChatRequest, ConfigurationError, ContextOverflow, Delta, Limits, Message, ModelNotFound

NO_LIMITS = Limits()


def engine(**settings: str) -> DummyEngine:
    env = {f"EXO_DUMMY_{name.upper()}": value for name, value in {"rate": "0", **settings}.items()}
    return DummyEngine(EngineContext(ModelStore(Path("unused")), env=env))


def request(text: str = "one two three", limits: Limits = NO_LIMITS) -> ChatRequest:
    return ChatRequest(model=MODEL, messages=(Message(role="user", content=text),), limits=limits)


async def answer(found: DummyEngine, asked: ChatRequest) -> tuple[str, Delta]:
    """The text, and the last delta."""
    deltas = [delta async for delta in found.chat(asked)]
    assert [delta for delta in deltas[:-1] if delta.finish_reason or delta.usage] == []
    return "".join(delta.text for delta in deltas), deltas[-1]


@pytest.mark.parametrize(
    ("limits", "text", "finish", "tokens"),
    [
        (NO_LIMITS, "word0 word1 word2 word3 ", "stop", 4),
        (Limits(max_tokens=2), "word0 word1 ", "length", 2),
        (Limits(max_tokens=4), "word0 word1 word2 word3 ", "stop", 4),
        (Limits(max_tokens=9), "word0 word1 word2 word3 ", "stop", 4),
        (Limits(max_tokens=0), "", "length", 0),
        (Limits(stop=("word2",)), "word0 word1 ", "stop", 3),
        (Limits(stop=("0 word1 w",)), "word", "stop", 3),
        (Limits(stop=("word3 and more",)), "word0 word1 word2 word3 ", "stop", 4),
        (Limits(stop=("word1",), max_tokens=2), "word0 ", "stop", 2),
    ],
)
async def test_answers(limits: Limits, text: str, finish: str, tokens: int) -> None:
    said, last = await answer(engine(tokens="4"), request(limits=limits))
    assert said == text
    assert last.finish_reason == finish
    assert last.stop == (limits.stop[0] if limits.stop and not text.endswith("word3 ") else None)
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, tokens)


async def test_the_first_word_of_an_answer_can_tell_the_node() -> None:
    assert (await answer(engine(tokens="3", first_word="n1"), request()))[0] == "n1 word1 word2 "


async def test_an_answer_of_no_words() -> None:
    said, last = await answer(engine(tokens="0"), request())
    assert (said, last.finish_reason) == ("", "stop")


async def test_a_prompt_over_the_context_is_refused_before_the_first_delta() -> None:
    with pytest.raises(ContextOverflow) as caught:
        await anext(engine().chat(request("word " * (CONTEXT + 1))))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (CONTEXT + 1, CONTEXT)
    said, _ = await answer(engine(tokens="1"), request("word " * CONTEXT))
    assert said == "word0 "


async def test_words_come_at_the_set_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    found = engine(rate="10", tokens="3")
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    deltas = [delta async for delta in found.chat(request())]
    assert pauses == pytest.approx([0.1, 0.1, 0.1])
    assert deltas[-1].timings is not None
    assert deltas[-1].timings.decode == pytest.approx(0.3)


async def test_the_model() -> None:
    found = engine()
    assert [card.id for card in await found.models()] == [MODEL] == list(found.loaded())
    await found.load(MODEL)
    await found.unload(MODEL)
    with pytest.raises(ModelNotFound, match=f"Known models: {MODEL}"):
        await found.load("gpt-4")
    assert len(await found.tokenize(MODEL, "a b  c")) == await found.count(request("a b  c")) == 3


def test_settings() -> None:
    assert engine().slots == 4
    assert engine(slots="9").slots == 9
    assert engine(slots="0").slots == 1
    assert engine(slots="").slots == 4
    assert DummyEngine.available({}).ok


@pytest.mark.parametrize("value", ["fast", "-1", "nan", "inf"])
def test_settings_that_are_no_numbers_are_named(value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"EXO_DUMMY_RATE has to be a number.*'{value}'"):
        engine(rate=value)
