from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from exo.inference import Availability, EngineContext, EngineHealth, InferenceEngine, describe_card
from exo.models import ModelStore
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    ModelCard,
    ThinkingMarkers,
    UnsupportedParameter,
)


class ChatOnlyEngine(InferenceEngine):
    """The least that the contract asks for."""

    name: ClassVar[str] = "chat-only"

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        return Availability(ok=True)

    @property
    def slots(self) -> int:
        return 1

    async def models(self) -> Sequence[ModelCard]:
        return []

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        pass

    async def unload(self, model: str) -> None:
        pass

    def loaded(self) -> Sequence[str]:
        return []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(finish_reason="stop")

    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        return []

    async def count(self, request: ChatRequest) -> int:
        return 0


@pytest.fixture
def engine(tmp_path: Path) -> ChatOnlyEngine:
    return ChatOnlyEngine(EngineContext(ModelStore(tmp_path)))


async def test_what_an_engine_leaves_out_is_refused_by_name(engine: ChatOnlyEngine) -> None:
    assert engine.capabilities == {"chat"}
    with pytest.raises(UnsupportedParameter, match="chat-only has no raw completions") as completion:
        engine.complete(CompletionRequest(model="m", prompt="p"))
    with pytest.raises(UnsupportedParameter, match="chat-only has no embeddings") as embedding:
        await engine.embed(EmbeddingRequest(model="m", inputs=("i",)))
    assert (completion.value.param, embedding.value.param) == ("prompt", "input")


async def test_an_engine_without_worries_is_healthy_and_closes(engine: ChatOnlyEngine) -> None:
    assert await engine.health() == EngineHealth(ready=True)
    await engine.close()


def test_a_card_may_name_the_engine_or_its_class(engine: ChatOnlyEngine) -> None:
    assert engine.source_of(ModelCard(id="m", files={"chat-only": "a", "ChatOnlyEngine": "b"})) == "a"
    assert engine.source_of(ModelCard(id="m", files={"ChatOnlyEngine": "b"})) == "b"
    assert engine.source_of(ModelCard(id="m", files={"InferenceEngine": "c"})) is None


@pytest.mark.parametrize(
    ("card", "capabilities"),
    [
        (ModelCard(id="m"), ("completion", "tools")),
        (ModelCard(id="m", thinking=ThinkingMarkers()), ("completion", "tools", "thinking")),
        (ModelCard(id="m", thinking=ThinkingMarkers(), pooling="last"), ("embedding",)),
    ],
)
def test_what_a_card_tells_of_a_models_abilities(card: ModelCard, capabilities: tuple[str, ...]) -> None:
    assert describe_card(card, tools=True).capabilities == capabilities


def test_contexts_share_nothing(tmp_path: Path) -> None:
    one, two = EngineContext(ModelStore(tmp_path)), EngineContext(ModelStore(tmp_path))
    assert one.registry is not two.registry
    assert one.cards is not two.cards


def test_the_powers_of_the_contract_are_pinned() -> None:
    powers = {name for name in vars(InferenceEngine) if not name.startswith("_")}
    assert powers == {
        "available",
        "capabilities",
        "chat",
        "close",
        "complete",
        "count",
        "create",
        "describe",
        "embed",
        "health",
        "library",
        "load",
        "loaded",
        "models",
        "no_model_hint",
        "prepare",
        "resident",
        "slots",
        "source_of",
        "tokenize",
        "unload",
    }
    assert InferenceEngine.__abstractmethods__ == powers - {
        "capabilities",
        "close",
        "complete",
        "create",
        "describe",
        "embed",
        "health",
        "library",
        "no_model_hint",
        "prepare",
        "resident",
        "source_of",
    }
