"""The engine class: requests go to another server, which has the models."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import ClassVar, NoReturn

import msgspec

from exo.inference.engine import (
    Availability,
    Capability,
    EngineContext,
    EngineHealth,
    InferenceEngine,
    ResidentModel,
)
from exo.inference.remote.dialects import Offer, find_offer
from exo.inference.remote.link import Link
from exo.inference.remote.ollama import OllamaClient
from exo.inference.remote.openai import OpenAIClient
from exo.inference.remote.settings import RemoteSettings
from exo.inference.remote.watch import Pace, Watch
from exo.models import ModelDescription
from exo.types import (
    ChatRequest,
    CompletionRequest,
    ConfigurationError,
    Delta,
    EmbeddingRequest,
    Embeddings,
    ExoError,
    ModelCard,
    RemoteFailed,
    RemoteUnavailable,
    UnsupportedParameter,
)
from exo.types.card import LATEST


class RemoteEngine(InferenceEngine):
    """Forwards whole conversations to a server that speaks Ollama's or OpenAI's dialect; models are the server's.

    The list of models is refreshed in the background while it is used; while the server is down the last known one
    counts. A request always tries the server itself, whatever the background has found. The capabilities are those of
    the dialects; what the server itself cannot do is refused by it, or by name where it is known to ignore it. `url`
    stands in for EXO_REMOTE_URL. Subclasses may override `on_exchange` and `on_check`.
    """

    name: ClassVar[str] = "remote"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            "chat",
            "completion",
            "tools",
            "reasoning",
            "think_budget",
            "embeddings",
            "json_schema",
            "logprobs",
        }
    )
    pace: ClassVar[Pace] = Pace()

    def __init__(self, context: EngineContext, *, url: str | None = None) -> None:
        super().__init__(context)
        settings = RemoteSettings.from_env(context.env, url=url)
        self._settings = settings
        self._link = Link(
            settings.url,
            api_key=settings.api_key,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            on_exchange=self.on_exchange,
        )
        self._ollama = OllamaClient(self._link)
        self._openai = OpenAIClient(self._link)
        self._offer: Offer | None = None
        self._finding = asyncio.Lock()
        self._watch = Watch(self._refresh, pace=self.pace, on_check=self.on_check)
        self._models: dict[str, ModelDescription] = {}
        self._shown: dict[str, tuple[ModelDescription, ModelDescription]] = {}
        self._resident: Sequence[ResidentModel] = ()

    @property
    def host(self) -> str:
        """Host and port of the server."""
        return self._link.host

    @property
    def no_model_hint(self) -> str:
        if self._watch.problem:
            return self._watch.problem
        return f"The server at {self.host} has none either; bring one there."

    @classmethod
    def available(cls, env: Mapping[str, str]) -> Availability:
        try:
            settings = RemoteSettings.from_env(env)
        except ConfigurationError as error:
            return Availability(ok=False, reason=error.message)
        return Availability(ok=True, reason=f"forwards to {settings.url}")

    @property
    def slots(self) -> int:
        return self._settings.slots

    def on_exchange(self, endpoint: str, status: str) -> None:
        """Told of each exchange with the server: its path, and the status, or `error` if no answer came."""

    def on_check(self, up: bool) -> None:  # noqa: FBT001 - it is called with nothing else
        """Told of each check in the background: whether the server answers."""

    async def models(self) -> Sequence[ModelCard]:
        waited = await self._watch.look()
        if not self._models and not waited:  # a server that was never there may have come meanwhile
            await self._watch.again()
        return [_card(known) for known in self._models.values()]

    async def describe(self, model: str) -> ModelDescription:
        """What the server tells. The context is that of the loaded model, else what it is known to be loaded with."""
        found = await self._details(model)
        context = next((one.context for one in self._resident if one.id == model), 0)
        return msgspec.structs.replace(found, context_length=context) if context else found

    async def load(self, model: str, *, keep_alive: float | None = None) -> None:
        """Only Ollama's dialect can do it; servers without it load with the first request."""
        async with self._reaching() as offer:
            if not offer.ollama:
                return
            await self._ollama.load(model, keep_alive)
        await self._watch.again()

    async def unload(self, model: str) -> None:
        async with self._reaching() as offer:
            if not offer.ollama:
                return
            await self._ollama.unload(model)
        await self._watch.again()

    def loaded(self) -> Sequence[str]:
        return [one.id for one in self._resident]

    def resident(self) -> Sequence[ResidentModel]:
        return self._resident

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with self._reaching() as offer:
            client = self._ollama if offer.for_run(request) == "ollama" else self._openai
            async with contextlib.aclosing(client.chat(request)) as deltas:
                async for delta in deltas:
                    yield delta

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[Delta, None]:
        async with self._reaching() as offer:
            client = self._ollama if offer.for_run(request) == "ollama" else self._openai
            async with contextlib.aclosing(client.complete(request)) as deltas:
                async for delta in deltas:
                    yield delta

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        async with self._reaching() as offer:
            return await (self._ollama if offer.ollama else self._openai).embed(request)

    async def tokenize(self, model: str, text: str) -> Sequence[int]:  # noqa: ARG002 - refused as a whole
        self._refuse_to_count("input")

    async def count(self, request: ChatRequest) -> int:  # noqa: ARG002 - refused as a whole
        self._refuse_to_count("messages")

    async def health(self) -> EngineHealth:
        await self._watch.look()
        if not self._watch.problem:
            return EngineHealth(ready=True, detail=f"forwarding to {self.host}")
        seconds = max(1, math.ceil(self._watch.retry_in))
        return EngineHealth(ready=False, detail=f"{self._watch.problem} It is tried again in {seconds} s.")

    async def close(self) -> None:
        await self._watch.close()
        await self._link.close()

    async def _details(self, model: str) -> ModelDescription:
        known = self._models.get(model) or ModelDescription(id=model)
        before, shown = self._shown.get(model, (None, known))
        if before == known or self._watch.problem or self._offer is None or not self._offer.ollama:
            return shown if before == known else known
        try:
            shown = await self._ollama.show(known, is_exo=self._offer.is_exo)
        except ExoError:  # a list of models is better with few facts than not at all
            return known
        self._shown[model] = (known, shown)
        return shown

    def _refuse_to_count(self, param: str) -> NoReturn:
        raise UnsupportedParameter(
            f"The engine {self.name} cannot count tokens: the server at {self.host} has the tokenizer.", param=param
        )

    @contextlib.asynccontextmanager
    async def _reaching(self) -> AsyncIterator[Offer]:
        """What the server offers, for one request. A server that fails may come back as another one."""
        try:
            yield await self._offered()
        except (RemoteUnavailable, RemoteFailed):
            self._offer = None
            self._watch.doubt()
            raise
        if self._watch.problem:
            self._watch.doubt()

    async def _offered(self) -> Offer:
        async with self._finding:
            if self._offer is None:
                dialect = self._settings.dialect
                if dialect == "auto":
                    self._offer = await find_offer(self.host, self._ollama, self._openai)
                else:
                    self._offer = Offer(ollama=dialect == "ollama", openai=dialect == "openai")
            return self._offer

    async def _refresh(self) -> None:
        try:
            offer = await self._offered()
            models = await (self._ollama if offer.ollama else self._openai).models()
            self._resident = await self._ollama.resident() if offer.ollama else ()
        except ExoError:
            self._offer, self._resident = None, ()
            raise
        self._models = {model.id: model for model in models}
        self._shown = {name: kept for name, kept in self._shown.items() if name in self._models}


def _card(known: ModelDescription) -> ModelCard:
    short = known.id.removesuffix(LATEST)
    return ModelCard(
        id=known.id,
        display_name=known.id,
        family=known.family,
        parameters=known.parameters_count,
        context_length=known.context_length,
        aliases=(short,) if short != known.id else (),
    )
