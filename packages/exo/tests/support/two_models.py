"""An engine with a quick and a reasoning model, of which memory holds one, and a chooser that does what a test says."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from scripted_server import ScriptedEngine

from exo.inference import Capability, InferenceService, NodeMetrics
from exo.inference.choice import ModelChoice, Situation
from exo.models import ModelDescription
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ModelCard,
    ModelLoadError,
    ModelRole,
    ThinkingMarkers,
    Usage,
)

QUICK, THINKER = (
    ModelCard(id="quick", context_length=2048),
    ModelCard(id="thinker", role="reasoning", thinking=ThinkingMarkers()),
)
HARD = "prove it"
"""What makes a text one for the reasoning model."""


class TwoModels(ScriptedEngine):
    """Answers with the model's id; a model in `broken` cannot be loaded. `loads` are those that took place."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "completion", "embeddings", "reasoning"})

    def __init__(self, *, slots: int = 1) -> None:
        super().__init__(slots=slots)
        self.broken: set[str] = set()
        self.loads: list[str] = []
        self.answered: list[str] = []
        self.resident_now = "quick"
        self.cards = [QUICK, THINKER]
        self.undescribed: set[str] = set()

    async def models(self) -> Sequence[ModelCard]:
        return self.cards

    async def describe(self, model: str) -> ModelDescription:
        if model in self.undescribed:
            raise OSError("gone")
        return await super().describe(model)

    def loaded(self) -> Sequence[str]:
        return [self.resident_now] if self.resident_now else []

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        if model in self.broken:
            raise ModelLoadError(f"{model} is broken")
        if self.resident_now != model:
            self.resident_now = model
            self.loads.append(model)

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        await self.load(request.model)
        self.answered.append(request.model)
        yield Delta(text=request.model)
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=1))

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        await self.load(request.model)
        self.answered.append(request.model)
        yield Delta(text=request.model)
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=1))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.answered.append(request.model)
        return Embeddings(vectors=((1.0,),) * len(request.inputs), usage=Usage())

    async def count(self, request: ChatRequest) -> int:
        self.requests.append(request)
        return 7


class ByText:
    """Chooses the reasoning model for a text with HARD in it; notes the situations it was asked in."""

    loads_per_request = 0.1
    load_burst = 4
    idle_seconds_per_load = math.inf

    def __init__(self) -> None:
        self.situations: list[Situation] = []

    def role_of(self, card: ModelCard) -> ModelRole:
        return card.role

    def choose(self, request: ChatRequest | CompletionRequest, situation: Situation) -> ModelChoice:
        self.situations.append(situation)
        text = request.messages[-1].content if isinstance(request, ChatRequest) else request.prompt
        hard = HARD in text
        loaded = next(one.card.id for one in situation.candidates if one.loaded or one is situation.candidates[-1])
        if not situation.may_load:
            hard = loaded == "thinker"
        there = [one.card.id for one in situation.candidates if one.card.id in ("quick", "thinker")]
        first, *others = reversed(there) if hard else there
        rule = "proof" if hard else "short-question"
        role: ModelRole = "reasoning" if hard else "quick"
        return ModelChoice(model=first, role=role, rule=rule, reason="the text says so", others=tuple(others))


def automatic_service(engine: TwoModels, chooser: ByText | None = None, **options: object) -> InferenceService:
    metrics = NodeMetrics(engine.context.registry)
    deciding = chooser or ByText()
    return InferenceService(engine, metrics, make_chooser=lambda: deciding, **options)  # type: ignore[arg-type]
