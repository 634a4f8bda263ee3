"""The engine against exo's contract, without a node."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from exo.inference import EngineContext
from exo.models import ModelStore, cards_by_id
from exo.types import (
    ChatRequest,
    ConfigurationError,
    ContextOverflow,
    Delta,
    InvalidRequest,
    Limits,
    Message,
    ModelLoadError,
)
from exo_echo.command import COMMAND
from exo_echo.detector import DEVICE_VARIABLE, detect
from exo_echo.engine import EchoEngine, split
from exo_echo.models import MODELS

TEXT = "one two  three\nfour"


@pytest.fixture
def engine(tmp_path: Path) -> EchoEngine:
    return EchoEngine(context(tmp_path))


def context(folder: Path, **env: str) -> EngineContext:
    cards, problems = cards_by_id([("exo-echo", MODELS)])
    assert problems == []
    return EngineContext(store=ModelStore(folder), cards=cards, env=env)


def ask(text: str, *, model: str = "echo-small", **limits: object) -> ChatRequest:
    return ChatRequest(
        model=model,
        messages=(Message(role="system", content="Be brief."), Message(role="user", content=text)),
        limits=Limits(**limits),  # type: ignore[arg-type]  # each test passes what the field takes
    )


def answer(engine: EchoEngine, request: ChatRequest) -> list[Delta]:
    async def collect() -> list[Delta]:
        return [delta async for delta in engine.chat(request)]

    return asyncio.run(collect())


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def words_counted(engine: EchoEngine) -> float | None:
    return engine.context.registry.get_sample_value("exo_echo_words_total", {"model": "echo-small"})


def test_an_answer_is_the_last_user_message_word_by_word(engine: EchoEngine) -> None:
    deltas = answer(engine, ask(TEXT))
    assert text_of(deltas) == TEXT
    assert [delta.text for delta in deltas[:-1]] == ["one", " two", "  three", "\nfour"]


def test_only_the_last_delta_has_finish_reason_and_usage(engine: EchoEngine) -> None:
    *others, last = answer(engine, ask(TEXT))
    assert all(delta.finish_reason is None and delta.usage is None for delta in others)
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (6, 4)


@pytest.mark.parametrize(("cap", "text", "reason"), [(2, "one two", "length"), (4, TEXT, "stop"), (9, TEXT, "stop")])
def test_max_tokens_is_exact(engine: EchoEngine, cap: int, text: str, reason: str) -> None:
    deltas = answer(engine, ask(TEXT, max_tokens=cap))
    assert text_of(deltas) == text
    assert deltas[-1].finish_reason == reason


def test_a_stop_string_may_lie_across_words_and_is_not_part_of_the_answer(engine: EchoEngine) -> None:
    deltas = answer(engine, ask(TEXT, stop=("o  th",)))
    assert text_of(deltas) == "one tw"
    assert deltas[-1].finish_reason == "stop"


def test_a_stop_string_that_stays_unfinished_is_part_of_the_answer(engine: EchoEngine) -> None:
    assert text_of(answer(engine, ask(TEXT, stop=("fours",)))) == TEXT


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine: EchoEngine) -> None:
    with pytest.raises(ContextOverflow) as refusal:
        answer(engine, ask("word " * 300))
    assert (refusal.value.prompt_tokens, refusal.value.context_tokens) == (303, 256)


def test_an_answer_ends_where_the_context_ends(engine: EchoEngine) -> None:
    deltas = answer(engine, ask("word " * 200))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.total_tokens == 256


def test_a_conversation_without_a_user_message_is_refused(engine: EchoEngine) -> None:
    with pytest.raises(InvalidRequest):
        answer(engine, ChatRequest(model="echo-small", messages=(Message(role="system", content="Hello."),)))


def test_closing_the_iterator_ends_the_work(engine: EchoEngine) -> None:
    async def read_two_words() -> None:
        deltas = engine.chat(ask("word " * 100))
        await anext(deltas)
        await anext(deltas)
        await deltas.aclose()

    asyncio.run(read_two_words())
    assert words_counted(engine) == 2


def test_answers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    engine = EchoEngine(context(tmp_path, EXO_ECHO_RATE="0.001"))

    async def read_one_beside_a_slow_one() -> str:
        slow = asyncio.create_task(anext(engine.chat(ask("slow"))))
        deltas = [delta async for delta in engine.chat(ask("fast", max_tokens=0))]
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        return str(deltas[-1].finish_reason)

    assert asyncio.run(read_one_beside_a_slow_one()) == "length"


def test_models_are_loaded_once_and_unloaded(engine: EchoEngine) -> None:
    async def load_and_unload() -> None:
        await engine.load("echo-wide")
        await engine.load("echo-wide")
        assert engine.loaded() == ["echo-wide"]
        await engine.unload("echo-wide")
        await engine.unload("echo-wide")
        assert engine.loaded() == []
        with pytest.raises(ModelLoadError):
            await engine.load("somebody-elses")

    asyncio.run(load_and_unload())


def test_both_shapes_of_cards_are_served(engine: EchoEngine) -> None:
    assert [card.id for card in asyncio.run(engine.models())] == ["echo-small", "echo-wide"]
    assert text_of(answer(engine, ask(TEXT, model="echo-wide"))) == TEXT


def test_token_ids_are_as_many_as_tokens_are_counted(engine: EchoEngine) -> None:
    ids = asyncio.run(engine.tokenize("echo-small", TEXT))
    assert len(ids) == len(split(TEXT)) == 4


@pytest.mark.parametrize("rate", ["fast", "-1", "inf", "nan"])
def test_a_wrong_setting_is_named(tmp_path: Path, rate: str) -> None:
    with pytest.raises(ConfigurationError, match="EXO_ECHO_RATE"):
        EchoEngine(context(tmp_path, EXO_ECHO_RATE=rate))


def test_the_detector_answers_only_where_the_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    assert detect() is None
    monkeypatch.setenv(DEVICE_VARIABLE, "1")
    assert detect() == "Echo Box"


def test_the_command_prints_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    assert COMMAND.run(parser.parse_args(["--models"]), {}) == 0
    assert capsys.readouterr().out.split() == ["echo-small", "echo-wide"]
