"""The engine contract: what the node asks of an engine, and what it gives to one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from prometheus_client import CollectorRegistry

from exo.models import HubLibrary, ModelDescription, ModelStore
from exo.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ModelCard,
    UnsupportedParameter,
)

Capability = Literal[
    "chat",
    "completion",
    "tools",
    "reasoning",
    "think_budget",
    "embeddings",
    "json_schema",
    "logprobs",
    "vision",
    "template",
]


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here; `reason` says why not, or what it found."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class EngineHealth:
    """`ready`: a request would be accepted now. `detail` says in words what the engine is doing."""

    ready: bool
    detail: str = ""


@dataclass(frozen=True)
class ResidentModel:
    """A model in memory. `size` in bytes and `context` in tokens are 0 if not known.

    `expires_in` is how many seconds it stays if nobody uses it any more, infinite for ever.
    """

    id: str
    size: int = 0
    context: int = 0
    expires_in: float = math.inf


@dataclass(frozen=True)
class EngineContext:
    """What the node gives to an engine.

    `env` stands for the environment variables; engines read nothing from the process itself. `cards` are all known
    cards by id. `registry` takes the engine's own metrics.
    """

    store: ModelStore
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


class InferenceEngine(ABC):
    """One way of running models. The node makes one instance and calls it from one event loop.

    Nothing may block the loop: native code belongs in a process of its own.
    """

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat"})

    def __init__(self, context: EngineContext) -> None:
        self.context = context

    @classmethod
    def create(cls, context: EngineContext) -> InferenceEngine:
        """The engine for this context. A class may answer with another engine of the same name."""
        return cls(context)

    def source_of(self, card: ModelCard) -> str | None:
        """Where the model's file for this engine comes from: `files` may name the engine or its class."""
        return card.files.get(self.name) or card.files.get(type(self).__name__)

    @property
    def no_model_hint(self) -> str:
        """What to do where the store has no model for this engine, as a sentence."""
        return "`exo models` lists the known ones."

    @classmethod
    @abstractmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        """Whether the engine can run on this machine. Quick, loads nothing, never raises."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many requests it runs at the same time."""

    @abstractmethod
    async def models(self) -> Sequence[ModelCard]:
        """The models that it can serve now, loaded or not. Quick: listings call it while streams run."""

    @property
    def library(self) -> HubLibrary | None:
        """What pulls, creates, copies and deletes models; None where that cannot be done through the node."""
        return None

    async def describe(self, model: str) -> ModelDescription:
        """What is known of one of `models()` without loading it. Quick, as listings call it for each of them."""
        card = next((card for card in await self.models() if card.id == model), ModelCard(id=model))
        return describe_card(card, tools="tools" in self.capabilities)

    @abstractmethod
    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        """Make `model` ready to answer; returns at once if it is. `keep_alive` as in ChatRequest.

        Raises ModelLoadError.
        """

    @abstractmethod
    async def unload(self, model: str) -> None:
        """Free what `model` holds; a model that is not loaded is left alone."""

    @abstractmethod
    def loaded(self) -> Sequence[str]:
        """The ids of the models that are loaded now."""

    def resident(self) -> Sequence[ResidentModel]:
        """The models that are loaded now, with what they take, used most recently first."""
        return [ResidentModel(id=model) for model in self.loaded()]

    async def prepare(self, request: ChatRequest) -> None:  # noqa: B027 - nothing has to be prepared
        """Do what can be done for `chat` without a slot, while the request waits for one; the same object comes again.

        Raises what `chat` would raise. It is not called for a request that finds a free slot.
        """

    @abstractmethod
    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Answer a conversation; load the model first, if it is not loaded.

        Every refusal is raised before the first delta: once a delta has come, the run has begun. The last delta carries
        the finish reason and the usage; with it the next request gets the slot. Closing the iterator cancels the work
        at once.
        """

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:  # noqa: ARG002 - refused as a whole
        """Continue a raw prompt; as `chat` in all else. Needs the capability `completion`."""
        raise UnsupportedParameter(f"The engine {self.name} has no raw completions.", param="prompt")

    async def embed(self, request: EmbeddingRequest) -> Embeddings:  # noqa: ARG002 - refused as a whole
        """Embed texts. Needs the capability `embeddings`."""
        raise UnsupportedParameter(f"The engine {self.name} has no embeddings.", param="input")

    @abstractmethod
    async def tokenize(self, model: str, text: str) -> Sequence[int]:
        """The token ids of plain text: strings of special tokens in it stay text, nothing is added around it."""

    @abstractmethod
    async def count(self, request: ChatRequest) -> int:
        """The number of tokens that `chat` would prefill for this request, template included."""

    async def health(self) -> EngineHealth:
        """What /ready reports about the engine itself."""
        return EngineHealth(ready=True)

    async def close(self) -> None:  # noqa: B027 - an engine without processes or connections has nothing to do here
        """Free everything; the instance is not used again."""


def describe_card(card: ModelCard, *, tools: bool = False) -> ModelDescription:
    """What a card alone tells; `tools`: the engine lets every model call functions."""
    return ModelDescription(
        id=card.id,
        family=card.family,
        parameters_count=card.parameters,
        parameter_size=count_text(card.parameters),
        context_length=card.context_length,
        licence=card.licence,
        capabilities=abilities(thinks=card.thinking is not None, tools=tools, embeds=card.pooling is not None),
    )


def abilities(*, thinks: bool, tools: bool, embeds: bool = False) -> tuple[str, ...]:
    """What a model can do, in the words of Ollama's listings. One that is there for vectors is not there for more."""
    if embeds:
        return ("embedding",)
    return ("completion", *(["tools"] if tools else []), *(["thinking"] if thinks else []))


def count_text(number: int) -> str:
    """A number of parameters as people write it: 135M, 1.5B; empty for an unknown one."""
    if number >= 1_000_000_000:
        return f"{number / 1e9:.1f}B"
    return f"{number / 1e6:.0f}M" if number >= 1_000_000 else str(number or "")
